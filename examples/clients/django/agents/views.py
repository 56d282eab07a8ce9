"""No view names the tenant: the middleware has bound it."""

import json

from django.http import HttpRequest, JsonResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_http_methods

from agents.models import Agent, User, Workflow


@require_GET
def agents(request: HttpRequest) -> JsonResponse:
    return JsonResponse(list(Agent.objects.order_by("name").values_list("name", flat=True)), safe=False)


@csrf_exempt
@require_http_methods(["PUT"])
def agent(request: HttpRequest, name: str) -> JsonResponse:
    """Makes an agent, or changes the one of this name: of this tenant, as the key is (tenant_id, name)."""
    Agent.objects.bulk_create(
        [Agent(name=name, config=json.loads(request.body))],
        update_conflicts=True,
        unique_fields=["tenant_id", "name"],
        update_fields=["config"],
    )
    agent = Agent.objects.get(name=name)  # the objects given have the ids that they came with
    return JsonResponse({"id": agent.id, "name": agent.name, "config": agent.config})


@csrf_exempt
@require_http_methods(["GET", "POST"])
def workflows(request: HttpRequest) -> JsonResponse:
    if request.method == "GET":
        return JsonResponse(list(Workflow.objects.order_by("name").values_list("name", flat=True)), safe=False)
    order = json.loads(request.body)
    workflow = Workflow.objects.create(name=order["name"], status="active", created_by=User.objects.get(email=order["email"]))
    return JsonResponse({"id": workflow.id, "name": workflow.name}, status=201)
