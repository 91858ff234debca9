"""What every process of a gateway has in common: its start and end, its loop, its privileges and its log."""

from .child import Child, ChildFault, run_child
from .log import configure_log
from .loop import Loop, Timer, boottime
from .memory import settle, settle_anew

__all__ = ["Child", "ChildFault", "Loop", "Timer", "boottime", "configure_log", "run_child", "settle", "settle_anew"]
