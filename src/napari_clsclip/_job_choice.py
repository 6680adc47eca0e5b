"""What does a segmentation: one request, a run over all planes, or one over blocks of a plane."""

from __future__ import annotations

from collections.abc import Callable

from napari.components import ViewerModel
from napari.layers import Image

from clsclip.config import InstanceSettings
from clsclip.wire import SegmentRequest
from napari_clsclip._large_run import LargeRun
from napari_clsclip._large_settings import large_settings
from napari_clsclip._layers import Plane, is_large
from napari_clsclip._plane_choice import EveryPlane
from napari_clsclip._planes_run import PlanesRun
from napari_clsclip._results import ResultLayers
from napari_clsclip._segment_job import SegmentJob
from napari_clsclip._supervisor import BackendSupervisor

Job = SegmentJob | PlanesRun | LargeRun


def job_for(
    viewer: ViewerModel,
    results: ResultLayers,
    supervisor: BackendSupervisor,
    image: Image,
    planes: EveryPlane | tuple[Plane],
    overview: Callable[[], Plane | None],
    request: SegmentRequest,
    threshold: Callable[[], float],
    objects: InstanceSettings | None,
) -> Job:
    """Choose by the number of planes and their size; nothing is started.

    Parameters
    ----------
    viewer, results, supervisor, image, request, threshold
        See :class:`PlanesRun` and :class:`LargeRun`.
    planes : EveryPlane, or tuple of Plane
        At least one.
    overview : callable
        Gives the plane on screen with far fewer pixels, or None; asked if the plane is large.
    objects : InstanceSettings or None
        How single objects are chosen, if they are asked for.

    Raises
    ------
    ClsClipError
        If the environment has settings for large planes that cannot be used, or something is
        asked for that cannot be had for so large a plane.
    """
    plain = request.model_copy(update={"attention": False})  # is shown of single planes only
    if isinstance(planes, EveryPlane) and len(planes) > 1:
        return PlanesRun(
            results, supervisor, image, planes, plain, threshold,
            None if objects is None else (threshold(), objects),
        )  # fmt: skip
    plane, large = planes[0], large_settings()
    if plane.index.whole and is_large(plane, large.large_from):
        return LargeRun(
            viewer, supervisor, image, plane, overview(), plain, threshold(), objects is not None,
            large,
        )  # fmt: skip
    return SegmentJob(
        supervisor, plane, request, None if objects is None else (threshold(), objects)
    )
