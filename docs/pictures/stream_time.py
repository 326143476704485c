"""The picture of docs/time.md: stream time over the records of a partition. Drawn by ``docs.pictures.draw``."""

from __future__ import annotations

# Event times in the order of arrival, in minutes.
ARRIVED = [2, 5, 4, 9, 7, 12, 6, 14]
BOUND = 3
LEFT, TOP, STEP, SCALE = 84, 8, 62, 14


def x(position: float) -> float:
    return LEFT + STEP * (position + 0.5)


def y(minutes: float) -> float:
    return TOP + SCALE * (16 - minutes)


def staircase(behind: int) -> str:
    highest, points = None, []
    for position, minutes in enumerate(ARRIVED):
        if highest is not None:
            points.append(f"{x(position):g},{y(highest - behind):g}")
        highest = minutes if highest is None else max(highest, minutes)
        points.append(f"{x(position):g},{y(highest - behind):g}")
    points.append(f"{x(len(ARRIVED) - 0.5):g},{y((highest or 0) - behind):g}")
    return " ".join(points)


def picture() -> str:
    width, height = LEFT + STEP * len(ARRIVED) + 190, y(-1) + 46
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" font-family="sans-serif" '
        'font-size="13">',
        f'<rect width="{width:g}" height="{height:g}" fill="white"/>',
    ]
    for minutes in range(0, 16, 5):
        lines.append(
            f'<line x1="{LEFT}" y1="{y(minutes):g}" x2="{x(len(ARRIVED) - 0.5):g}" y2="{y(minutes):g}" stroke="#ddd"/>'
            f'<text x="{LEFT - 8}" y="{y(minutes) + 4:g}" text-anchor="end" fill="#444">{minutes} min</text>'
        )
    for behind, colour, dashes, text in (
        (0, "#1f6feb", "", "stream time"),
        (BOUND, "#b35900", ' stroke-dasharray="6 4"', f"with out_of_order={BOUND} min"),
    ):
        end = y(max(ARRIVED) - behind)
        lines.append(
            f'<polyline points="{staircase(behind)}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>'
            f'<text x="{x(len(ARRIVED) - 0.5) + 6:g}" y="{end + 4:g}" fill="{colour}">{text}</text>'
        )
    for position, minutes in enumerate(ARRIVED):
        # Beside the lines: above what raises stream time, to the right of what comes late.
        late = minutes < max(ARRIVED[: position + 1])
        along, up, anchor = (9, -4, "start") if late else (-8, 6, "end")
        lines.append(
            f'<circle cx="{x(position):g}" cy="{y(minutes):g}" r="5" fill="#222"/>'
            f'<text x="{x(position) + along:g}" y="{y(minutes) - up:g}" text-anchor="{anchor}" fill="#222">'
            f"{minutes}</text>"
        )
    lines.append(
        f'<text x="{x((len(ARRIVED) - 1) / 2):g}" y="{y(-1) + 30:g}" text-anchor="middle" fill="#444">'
        "records of one partition, in the order of arrival</text>"
        f'<text x="12" y="{y(8):g}" transform="rotate(-90 12 {y(8):g})" text-anchor="middle" fill="#444">'
        "event time</text>"
    )
    return "\n".join([*lines, "</svg>", ""])
