"""Tables as docs/benchmarks.md has them."""


def heading(*columns):
    print("\n| " + " | ".join(columns) + " |")
    print("|---|" + "--:|" * (len(columns) - 1), flush=True)


def row(name, *values):
    shown = ("" if value is None else f"{value:,.0f}" if value >= 1000 else f"{value:.3g}" for value in values)
    print(f"| {name} | " + " | ".join(shown) + " |", flush=True)
