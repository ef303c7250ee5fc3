"""Real processes for tests: a hub, a development IAM, a person with a scripted browser."""

from tests.harness.hub import Hub
from tests.harness.iam import Iam
from tests.harness.person import Person

__all__ = ["Hub", "Iam", "Person"]
