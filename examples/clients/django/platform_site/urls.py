from django.urls import path

from agents import views

urlpatterns = [
    path("agents", views.agents),
    path("agents/<str:name>", views.agent),
    path("workflows", views.workflows),
]
