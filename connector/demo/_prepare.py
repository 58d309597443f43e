"""Runs under the server's own Python: migrates an empty database and makes the people in it.

Called as: python _prepare.py FOLDER NAME…; writes label_studio.sqlite3, .env and users.json there.
"""

import json
import os
import sys
from pathlib import Path

import label_studio

PASSWORD = "labeling-1"


def main(folder: Path, names: list[str]) -> None:
    # The server's own start-up does the same; its settings are found beside its package.
    sys.path.insert(0, str(Path(label_studio.__file__).parent))
    os.environ["DJANGO_SETTINGS_MODULE"] = "label_studio.core.settings.label_studio"
    import django

    django.setup()
    from django.core.management import call_command

    call_command("migrate", interactive=False, verbosity=0)
    users = make_users(names)
    (folder / "users.json").write_text(json.dumps(users, indent=2))


def make_users(names: list[str]) -> list[dict[str, object]]:
    """The first is the owner, the others are members of the same organization."""
    from jwt_auth.models import LSAPIToken
    from organizations.models import Organization
    from rest_framework.authtoken.models import Token
    from users.models import User

    made = []
    organization = None
    for number, name in enumerate(names):
        email = f"{name}@example.com"
        user = User.objects.create_user(email=email, password=PASSWORD, first_name=name.capitalize())
        if organization is None:
            organization = Organization.create_organization(created_by=user, title="Demo")
            organization.jwt.api_tokens_enabled = True
            organization.jwt.legacy_api_tokens_enabled = True
            organization.jwt.save()
        else:
            organization.add_user(user)
        user.active_organization = organization
        user.save()
        Token.objects.filter(user=user).delete()
        legacy = Token.objects.create(user=user, key=f"{number + 1:x}" * 40)
        made.append(
            {
                "email": email,
                "id": user.id,
                "token": legacy.key,
                "pat": LSAPIToken.for_user(user).get_full_jwt(),
            }
        )
    return made


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
