"""Celery: messages are hints that say "look at row X"; the rows are the queue.

Hence messages are acknowledged early, results are not kept, and losing every message costs one sweep interval.
Tasks run in threads: they wait for networks and disks, and a killed worker leaves no pool process behind.

Two queues in one: Redis hands out what is URGENT before what is ROUTINE, so that a launch does not wait behind looks at
everything that runs.
"""

from __future__ import annotations

from celery import Celery

from control_plane.settings import Settings, get_settings

#: Modules with tasks.
TASK_MODULES = ["control_plane.downloads.tasks", "control_plane.instances.tasks", "control_plane.reaper.tasks"]

#: Sent by people's requests and by the scheduler …
URGENT = 0
#: … and by workers, to each other. (Where the transport is Redis, lower numbers come first.)
ROUTINE = 6


def make_celery(settings: Settings) -> Celery:
    """The Celery application for ``settings``."""
    app = Celery("slipway", broker=settings.broker_url, include=TASK_MODULES)
    app.conf.update(
        task_ignore_result=True,
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        worker_pool="threads",
        worker_concurrency=8,
        worker_hijack_root_logger=False,
        worker_soft_shutdown_timeout=5.0,
        broker_connection_retry_on_startup=True,
        broker_transport_options={
            "priority_steps": [URGENT, ROUTINE],
            "visibility_timeout": 3600,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
            "socket_keepalive": True,
            "health_check_interval": 10,
            # A web request must not hang because the broker is away: the sweep finds the row.
            "max_retries": 1,
            "interval_start": 0.0,
        },
        task_publish_retry=False,
        timezone="UTC",
        beat_schedule={
            "sweep-instances": {"task": "instances.sweep", "schedule": settings.sweep_interval_s},
            "sweep-downloads": {"task": "downloads.sweep", "schedule": settings.sweep_interval_s},
            # Oftener than the interval: rows say what is due, and a tick that comes a moment too early costs a third.
            "sweep-providers": {"task": "reaper.sweep", "schedule": settings.reap_interval_s / 3},
        },
    )
    return app


def hints_waiting(app: Celery) -> int:
    """How many messages no worker has taken yet.

    :raises kombu.exceptions.OperationalError: the broker does not answer.
    """
    with app.connection_or_acquire() as connection:
        return int(connection.default_channel.queue_declare(queue=app.conf.task_default_queue).message_count)


celery_app = make_celery(get_settings())
