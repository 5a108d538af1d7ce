from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('telemetry', '0001_initial'),
    ]

    operations = [
        migrations.AddField(
            model_name='limitevent',
            name='since',
            field=models.DateTimeField(null=True),
        ),
    ]
