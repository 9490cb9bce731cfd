"""The pages of the example, Django's admin, and what the store answers."""

from django.contrib import admin
from django.urls import include, path

from chat.views import ask

urlpatterns = [
    path("ask", ask),
    path("admin/", admin.site.urls),
    path("observatory/", include("observatory_storage.django.urls")),
]
