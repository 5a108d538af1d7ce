import re

from django.db import migrations

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")


def name_archives(apps, schema_editor):
    """Until now a tag was the end of an image's reference, and `latest` the newest image: the same as rows."""
    image_model, tag_model = apps.get_model("images", "Image"), apps.get_model("images", "Tag")
    tags = {}
    for image in image_model.objects.order_by("created_at", "pk").only("pk", "repository", "reference"):
        tags[image.repository, "latest"] = image.pk
        name = image.reference.rpartition(":")[2] if ":" in image.reference else ""
        if NAME.fullmatch(name):
            tags[image.repository, name] = image.pk
    rows = [tag_model(repository=repository, name=name, image_id=key) for (repository, name), key in tags.items()]
    tag_model.objects.bulk_create(rows, batch_size=500)


class Migration(migrations.Migration):

    dependencies = [
        ('images', '0003_tags_and_pushes'),
    ]

    operations = [
        migrations.RunPython(name_archives, migrations.RunPython.noop),
    ]
