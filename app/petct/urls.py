"""Every address of the application."""

from django.urls import path
from photos.views import picture
from viewer.views import show, volume

from petct import views

urlpatterns = [
    path("", views.index, name="index"),
    path("healthz", views.healthz, name="healthz"),
    path("show/", show, name="show"),
    path("volume/<str:ticket>", volume, name="volume"),
    path("photos/<str:name>", picture, name="picture"),
]
