"""The first table."""

from django.db import migrations, models


class Migration(migrations.Migration):
    """Posts."""

    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            name="Post",
            fields=[
                ("id", models.BigAutoField(primary_key=True)),
                ("text", models.TextField()),
                ("words", models.IntegerField(default=0)),
            ],
        ),
    ]
