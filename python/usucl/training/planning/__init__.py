"""What a run would do, and what it would take, found out without doing it."""

from usucl.training.planning.dry_run import Plan, Stage, plan

__all__ = ["Plan", "Stage", "plan"]
