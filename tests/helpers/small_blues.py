"""A folder in the form of COVID-BLUES, with other videos."""

from __future__ import annotations

from pathlib import Path

from tiny_videos import moving, write


def write_blues(root: Path) -> Path:
    """Two patients: all points of both sides, one of them again, and one side in part."""
    points = [f"1_{zone}" for zone in ("L1", "L2", "L3", "R1", "R2", "R3")]
    points += ["1_L1_2", "2_L1", "2_L3", "2_R1_2", "2_R2", "2_R3"]
    (root / "lus_videos").mkdir(parents=True)
    first = write(root / "first.mp4", moving(4))
    scores = ["video_file,Severity Score,A-lines,B-lines,comments"]
    for n, point in enumerate(points):
        # The end of the file tells the videos apart; FFmpeg passes over it.
        file = root / "lus_videos" / f"patient_{point}.mp4"
        file.write_bytes(first.read_bytes() + b"\0\0\0\x0cfree" + bytes([n] * 4))
        # Some of the owner's answers have a blank behind them.
        scores.append(f'patient_{point},{n % 4}.0,{"yes" if n % 2 else "no"},no ,"a, and b"')
    first.unlink()
    (root / "severity.csv").write_text("\n".join(scores) + "\n")
    return root
