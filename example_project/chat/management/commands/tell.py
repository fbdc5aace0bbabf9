from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError

from dwebsocket import GroupsUnavailable, user_group


class Command(BaseCommand):
    help = "Shows a text in every tab that a user has open, whichever process holds it."

    def add_arguments(self, parser):
        parser.add_argument("username")
        parser.add_argument("text")

    def handle(self, *, username, text, **options):
        users = get_user_model()
        try:
            user = users.objects.get_by_natural_key(username)
            user_group(user).send_json({"type": "notice", "text": text})
        except users.DoesNotExist:
            raise CommandError(f"there is no user {username!r}") from None
        except GroupsUnavailable as error:
            raise CommandError(error) from error
