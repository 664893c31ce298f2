"""One page, and one that asks a worker."""

from django.urls import path
from posts import views

urlpatterns = [path("", views.index), path("count/<str:text>/", views.count)]
