"""One group's limits over time: a limit that stays hit is one event that is renewed, and ends when it has been left alone for a while."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

from runtime.engine.hits import LONG_S, RULES, SHORT_S, Hit, Level, Look, Moment
from runtime.engine.resources import Resources

RENEW_S = 60.0
OVER_S = 10.0
KEPT = 6  # looks


@dataclass(slots=True)
class Episode:
    """A limit that is being hit: lately as `hit` says; `whom` is who was told of it, where a group's limit concerns several."""

    since_ns: int
    told: Moment
    last_ns: int
    hit: Hit
    whom: set[str] = field(default_factory=set)


@dataclass(slots=True)
class Watched:
    """What is remembered of a group between looks. `moments` may begin with the one it was made at, when all is 0."""

    moments: deque[Moment] = field(default_factory=lambda: deque(maxlen=KEPT))
    episodes: dict[str, Episode] = field(default_factory=dict)

    def judge(self, now: Moment, allowed: Resources, level: Level = "instance") -> list[Hit]:
        """What is to be told of now, and remember it. The first look at a group that was there before tells nothing."""
        found = []
        if self.moments:
            short, long = (Look(self._before(now.ns, s), now, allowed, level) for s in (SHORT_S, LONG_S))
            for key, rule in RULES.items():
                episode = self.episodes.get(key)
                look = short if rule.window_s == SHORT_S else long
                hit = rule.judge(replace(look, going=True) if episode else look)
                if hit or episode:
                    found.append(self._told(key, look, hit, episode))
        self.moments.append(now)
        return [hit for hit in found if hit]

    def _told(self, key: str, look: Look, hit: Hit | None, episode: Episode | None) -> Hit | None:
        now = look.now
        if hit is None:
            if episode and now.ns - episode.last_ns >= OVER_S * 1e9:
                del self.episodes[key]
            return None
        if episode is None:
            hit = replace(hit, since_ns=now.ns)
            self.episodes[key] = Episode(now.ns, now, now.ns, hit)
            return hit
        episode.last_ns, episode.hit = now.ns, replace(hit, since_ns=episode.since_ns)
        if now.ns - episode.told.ns < RENEW_S * 1e9:
            return None
        whole = RULES[key].judge(replace(look, then=episode.told, going=True))
        episode.told = now
        if whole:
            episode.hit = replace(whole, since_ns=episode.since_ns)
        return episode.hit

    def hit_now(self) -> list[Episode]:
        """Of limits that the newest look found hit."""
        return [episode for episode in self.episodes.values() if episode.last_ns == self.moments[-1].ns]

    def _before(self, ns: int, window_s: float) -> Moment:
        """The newest look that is at least `window_s` old, else the oldest."""
        latest = ns - window_s * 1e9
        return next((moment for moment in reversed(self.moments) if moment.ns <= latest), self.moments[0])
