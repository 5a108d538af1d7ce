"""Waiting for a deployment to end: asleep on Redis pub/sub, with no database connection and no thread held."""

from __future__ import annotations

import asyncio
import time

import redis.asyncio
from redis.exceptions import RedisError

from portal.config import config
from portal.releases.models import Deployment
from portal.releases.rollout import ACTIVE
from portal.threads import in_thread
from worker.protocol import deployment_channel

WAIT_MAX_S = 600.0
LOOK_ANYWAY_S = 5.0  # a hint may be lost


def _state(deployment_id: int) -> str:
    return Deployment.objects.filter(pk=deployment_id).values_list("state", flat=True).first() or "cancelled"


async def wait_for_end(deployment_id: int, seconds: float) -> str | None:
    """The state the deployment ended in, or None when `seconds` ran out first."""
    end = time.monotonic() + min(seconds, WAIT_MAX_S)
    client = redis.asyncio.Redis.from_url(config().redis_url, socket_connect_timeout=2)
    try:
        async with client.pubsub() as pubsub:
            try:
                await pubsub.subscribe(deployment_channel(deployment_id))
                listening = True
            except (RedisError, OSError):
                listening = False
            while True:
                state = await in_thread(_state, deployment_id)
                if state not in ACTIVE:
                    return state
                left = end - time.monotonic()
                if left <= 0:
                    return None
                listening = await _hint(pubsub if listening else None, min(left, LOOK_ANYWAY_S))
    finally:
        await client.aclose()


async def _hint(pubsub: redis.asyncio.client.PubSub | None, seconds: float) -> bool:
    """Return at a message or after `seconds`; False when Redis is gone, which only makes waiting coarser."""
    if pubsub is None:
        await asyncio.sleep(min(seconds, 1.0))
        return False
    try:
        await pubsub.get_message(ignore_subscribe_messages=True, timeout=seconds)
    except (RedisError, OSError):
        return False
    return True
