"""Tests of the Django app. Its models can be imported only when a project has been set up."""

from tests.django_app.project_settings import set_up

set_up()
