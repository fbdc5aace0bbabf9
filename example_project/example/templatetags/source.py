import inspect

from django import template
from django.urls import resolve, reverse

register = template.Library()


@register.simple_tag
def source(url_name: str) -> str:
    """The code of the view behind a URL name, so that the page shows what really runs."""
    view = resolve(reverse(url_name)).func
    return inspect.getsource(inspect.unwrap(view)).strip()
