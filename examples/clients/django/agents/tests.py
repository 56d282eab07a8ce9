from django.db import ProgrammingError, transaction
from django.http import Http404, HttpRequest
from django.test import Client, TestCase, override_settings
from django.urls import path

from agents.models import Agent
from platform_site.urls import urlpatterns as of_the_site
from tenancy.binding import bound, tenant


def client_of(slug: str) -> Client:
    return Client(headers={"host": f"{slug}.platform.example"})


def fails_half_way(request: HttpRequest) -> None:
    Agent.objects.create(name="acme: Half")
    raise Http404


urlpatterns = [*of_the_site, path("half-way", fails_half_way)]


class Tenants(TestCase):
    """Everything here is in one transaction, which is rolled back."""

    @classmethod
    def setUpTestData(cls) -> None:
        for slug in ("acme", "globex"):
            with bound(tenant(slug)):
                Agent.objects.create(name=f"{slug}: Tester")

    def test_each_tenant_gets_its_own(self) -> None:
        for slug in ("acme", "globex"):
            self.assertEqual(client_of(slug).get("/agents").json(), [f"{slug}: Tester"])
            with bound(tenant(slug)):
                self.assertEqual(Agent.objects.get().name, f"{slug}: Tester")

    def test_one_writes_and_the_other_does_not_see_it(self) -> None:
        client_of("acme").put("/agents/acme: New", data={}, content_type="application/json")
        self.assertEqual(len(client_of("acme").get("/agents").json()), 2)
        self.assertEqual(len(client_of("globex").get("/agents").json()), 1)

    def test_nothing_is_bound_after_a_request(self) -> None:
        client_of("acme").get("/agents")
        with self.assertRaisesMessage(ProgrammingError, "no tenant is bound in this transaction"), transaction.atomic():
            Agent.objects.count()

    def test_a_refused_request_is_undone_alone(self) -> None:
        orders = [{"name": f"hooli: Flow {n}", "email": "ada@hooli.example"} for n in (1, 2, 3)]
        hooli = client_of("hooli")
        answers = [hooli.post("/workflows", data=order, content_type="application/json") for order in orders]
        self.assertEqual([answer.status_code for answer in answers], [201, 201, 402])
        self.assertEqual(hooli.get("/workflows").json(), ["hooli: Flow 1", "hooli: Flow 2"])

    @override_settings(ROOT_URLCONF=__name__)
    def test_a_request_that_fails_half_way_is_undone(self) -> None:
        self.assertEqual(client_of("acme").get("/half-way").status_code, 404)
        self.assertEqual(client_of("acme").get("/agents").json(), ["acme: Tester"])
