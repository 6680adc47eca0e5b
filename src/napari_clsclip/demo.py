"""Show what the plugin does: ``python -m napari_clsclip.demo``.

Opens napari with the widget, opens a sample image, types a word, presses Segment and waits for
the result. The window stays open. Without a display, or with ``--screenshot``, the same happens
on a virtual display, and a picture of the window and the labels are written to ``demo/``.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Labels

    from napari_clsclip._widget import ClsClipWidget

PLUGIN: Final = "napari-clsclip"
SAMPLE: Final = "cell"
WORD: Final = "cell"
WINDOW_SIZE: Final = (1400, 900)
FOLDER: Final = Path("demo")
START_SECONDS: Final = 120.0
SEGMENT_SECONDS: Final = 600.0


def main(argv: Sequence[str] | None = None) -> int:
    """Run the demo.

    Parameters
    ----------
    argv : sequence of str, optional
        Arguments without the program's name. None: those of the process.

    Returns
    -------
    int
        Exit code: 0 if a result was shown, 1 if not.
    """
    parser = argparse.ArgumentParser(prog="python -m napari_clsclip.demo", description=__doc__)
    parser.add_argument(
        "--screenshot",
        action="store_true",
        help="use a virtual display, write demo/segment.png and demo/labels.tif, and exit",
    )
    args = parser.parse_args(argv)
    if not (args.screenshot or _display_is_missing()):
        import napari

        ok = _segment(*_open_window()) is not None
        napari.run()
        return 0 if ok else 1
    os.environ["NAPARI_CONFIG"] = ""  # neither read nor change the user's settings
    with _virtual_display():
        viewer, widget = _open_window()
        labels = _segment(viewer, widget)
        if labels is not None:
            _write(viewer, widget, labels)
        viewer.close()
    return 0 if labels is not None else 1


def _open_window() -> tuple[Viewer, ClsClipWidget]:
    import napari

    viewer = napari.Viewer()
    viewer.window.resize(*WINDOW_SIZE)
    viewer.open_sample(PLUGIN, SAMPLE)
    _, widget = viewer.window.add_plugin_dock_widget(PLUGIN, "ClsCLIP")
    return viewer, widget


def _segment(viewer: Viewer, widget: ClsClipWidget) -> Labels | None:
    """Type the word and press the button; returns the result, None after telling why not."""
    from napari.layers import Labels

    from napari_clsclip._supervisor import BackendState

    tab, status = widget.segment_tab, widget.status_line.connection
    _process_events(lambda: status.status.state is BackendState.STARTING, START_SECONDS)
    tab.words.setText(WORD)
    tab.segment_button.click()
    _process_events(lambda: tab.busy, SEGMENT_SECONDS)
    results = [layer for layer in viewer.layers if isinstance(layer, Labels)]
    if not results:
        sys.stderr.write(f"{tab.message.text()}\n{status.status.details}\n")
        return None
    viewer.reset_view()
    return results[-1]


def _write(viewer: Viewer, widget: ClsClipWidget, labels: Labels) -> None:
    import tifffile
    from scipy import ndimage

    FOLDER.mkdir(exist_ok=True)
    picture, tif = FOLDER / "segment.png", FOLDER / "labels.tif"
    _process_events(lambda: True, 1.0)  # let the window draw
    viewer.screenshot(str(picture), canvas_only=False, flash=False)
    tifffile.imwrite(tif, labels.data, compression="zlib")
    foreground = labels.data > 0
    _, objects = ndimage.label(foreground)
    made = labels.metadata["clsclip"]
    sys.stdout.write(
        f"Segmented '{WORD}' in the sample '{SAMPLE}' with the model {made['model']} "
        f"({made['model_version']}), zoom {made['zooms'][0]:.2g}.\n"
        f"Backend: {widget.status_line.connection.status.message}.\n"
        f"{int(foreground.sum()):,} of {foreground.size:,} pixels are foreground, "
        f"in {objects:,} connected objects.\n"
        f"Wrote {picture} and {tif}.\n"
    )


def _process_events(waiting: Callable[[], bool], seconds: float) -> None:
    """Run Qt's event loop while ``waiting`` says so, at most ``seconds``."""
    from qtpy.QtWidgets import QApplication

    end = time.monotonic() + seconds
    while waiting() and time.monotonic() < end:
        QApplication.processEvents()
        time.sleep(0.01)


def _display_is_missing() -> bool:
    return sys.platform.startswith("linux") and not (
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )


@contextmanager
def _virtual_display() -> Iterator[None]:
    """Draw into memory on Linux; on other systems the window shows up for a moment."""
    if not sys.platform.startswith("linux"):
        yield
        return
    try:
        from pyvirtualdisplay.display import Display
    except ImportError:
        sys.exit(
            "A virtual display needs the package PyVirtualDisplay and the program Xvfb. "
            "`tox -e demo` runs the demo with both."
        )
    os.environ["QT_QPA_PLATFORM"] = "xcb"
    with Display(visible=False, size=WINDOW_SIZE, color_depth=24):
        yield


if __name__ == "__main__":
    sys.exit(main())
