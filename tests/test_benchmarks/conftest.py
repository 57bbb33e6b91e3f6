"""Makes the checkout's ``benchmarks`` importable, which are no part of the package."""
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.append(str(ROOT))
