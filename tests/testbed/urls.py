"""The toolkit's views, at the paths where the rig looks for them."""

from django.http import HttpRequest, JsonResponse
from django.urls import path
from oauth2_provider.decorators import protected_resource
from oauth2_provider.views import IntrospectTokenView, RevokeTokenView, TokenView


def me(request: HttpRequest) -> JsonResponse:
    """Tell a bearer who it is."""
    return JsonResponse({"user": request.resource_owner.username})


urlpatterns = [
    path("v2/token", TokenView.as_view()),
    path("v2/me", protected_resource()(me)),
    path("v2/introspect", IntrospectTokenView.as_view()),
    path("v2/revoke", RevokeTokenView.as_view()),
]
