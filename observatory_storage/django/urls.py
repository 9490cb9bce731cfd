"""URLs to include: ``path("observatory/", include("observatory_storage.django.urls"))``."""

from __future__ import annotations

from django.urls import path

from observatory_storage.django import views

app_name = "observatory_storage"

urlpatterns = [
    path("health", views.health, {"path": "/health"}, name="health"),
    path("health/live", views.live, name="live"),
    path("health/ready", views.health, {"path": "/health/ready"}, name="ready"),
    path("metrics", views.metrics, name="metrics"),
    path("v1/<str:signal>", views.otlp, name="otlp"),  # whose application knows the signals
    path("traces/<str:trace_id>", views.trace, name="trace"),
]
