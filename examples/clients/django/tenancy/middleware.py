"""One transaction around each request, bound to the request's tenant. (ATOMIC_REQUESTS is around the view only: leave it off.)"""

from collections.abc import Callable

from django.db import DatabaseError, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse

from tenancy.binding import Binding, BindingRefused, api_key, bound, message, sqlstate, tenant

# What a refused bind means, and what the statements after it may run into. Anything else is a bug: 500.
AT_BIND = {"28000": 401, "42501": 403, "P0002": 404, "53400": 429, "55000": 503}
LATER = {"54000": 402, "53400": 429, "25006": 403, "23505": 409}


class TenantMiddleware:
    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def binding(self, request: HttpRequest) -> Binding:
        raise NotImplementedError

    def __call__(self, request: HttpRequest) -> HttpResponse:
        try:
            with bound(self.binding(request)):
                response = self.get_response(request)
                if response.status_code >= 400:  # exceptions of views are responses by now
                    transaction.set_rollback(True)
            return response
        except BindingRefused as error:
            if (status := AT_BIND.get(error.sqlstate)) is None:
                raise
            challenge = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
            return JsonResponse({"error": str(error)}, status=status, headers=challenge)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        if not isinstance(exception, DatabaseError) or sqlstate(exception) not in LATER:
            return None
        return JsonResponse({"error": message(exception)}, status=LATER[sqlstate(exception)])


class HostMiddleware(TenantMiddleware):
    """acme.platform.example is Acme. One with log-in takes the tenant from its session, and passes the user too."""

    def binding(self, request: HttpRequest) -> Binding:
        return tenant(request.get_host().partition(".")[0])


class ApiKeyMiddleware(TenantMiddleware):
    def binding(self, request: HttpRequest) -> Binding:
        return api_key(request.headers.get("Authorization", "").removeprefix("Bearer "))
