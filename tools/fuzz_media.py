"""Media files of many containers and codecs, damaged; looking into a file and reading it must agree."""

import io
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import av
import numpy as np
from media_files import picture, write_media
from mutations import damaged

from mmdisaster.media.files import MediaError, MissingTrack
from mmdisaster.media.frames import read_frames
from mmdisaster.media.sound import read_waveform
from mmdisaster.media.survey import probe

KINDS: dict[str, dict[str, Any]] = {  # file → how it is written
    "mp4.mp4": {},
    "faststart.mp4": {"container_options": {"movflags": "faststart"}},
    "fragments.mp4": {"container_options": {"movflags": "frag_keyframe+empty_moov"}},
    "hevc.mp4": {"video_codec": "hevc"},
    "turned.mov": {"rotation": 90},
    "h264.mkv": {"audio_codec": "opus", "sample_rate": 48000},
    "vp8.webm": {"video_codec": "vp8", "audio_codec": "vorbis", "layout": "stereo"},
    "vp9.webm": {"video_codec": "vp9", "audio_codec": None},
    "ffv1.mkv": {"video_codec": "ffv1", "audio_codec": "flac"},
    "mpeg4.avi": {"video_codec": "mpeg4", "audio_codec": "mp3"},
    "mjpeg.avi": {"video_codec": "mjpeg", "audio_codec": "pcm"},
    "h264.flv": {},
    "h264.ts": {"audio_codec": "ac3", "sample_rate": 48000},
    "mpeg2.mpg": {"video_codec": "mpeg2", "audio_codec": None, "frame_rate": 25},
    "aac.m4a": {"video_codec": None, "container_format": "ipod"},
    "sound.wav": {"video_codec": None, "audio_codec": "pcm"},
    "u8.wav": {"video_codec": None, "audio_codec": "pcm_u8"},
    "sound.mp3": {"video_codec": None, "audio_codec": "mp3"},
    "sound.ogg": {"video_codec": None, "audio_codec": "vorbis", "layout": "stereo"},
    "sound.opus": {"video_codec": None, "audio_codec": "opus", "sample_rate": 48000},
    "sound.flac": {"video_codec": None, "audio_codec": "flac"},
    "sound.aac": {"video_codec": None, "container_format": "adts"},
}
PICTURES = {"a.png": "png", "a.jpg": "mjpeg", "a.gif": "gif", "a.webp": "libwebp", "a.bmp": "bmp"}


def still(codec: str) -> bytes:
    """A picture as a file of its own."""
    form = {"mjpeg": "yuvj420p", "gif": "rgb8", "libwebp": "yuv420p", "bmp": "bgr24"}.get(codec, "rgb24")
    container = {"png": "image2pipe", "mjpeg": "image2pipe", "bmp": "image2pipe", "gif": "gif", "libwebp": "webp"}[
        codec
    ]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as file:
        stream = file.add_stream(codec, rate=10)
        stream.height, stream.width, stream.pix_fmt = 64, 96, form
        stream.codec_context.thread_count = 1
        frame = av.VideoFrame.from_ndarray(picture(9, (64, 96)), format="rgb24").reformat(format=form)
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return buffer.getvalue()


def good_files(folder: Path) -> dict[str, bytes]:
    """A file of each kind that this build of FFmpeg can write."""
    found = {}
    for name, about in KINDS.items():
        try:
            path = write_media(folder / f"good-{name}", **{"seconds": 1.5, "size": (64, 96)} | about)
        except (av.FFmpegError, ValueError) as error:
            print(f"media: no {name} here ({error})")
            continue
        found[name] = path.read_bytes()
        path.unlink()
    for name, codec in PICTURES.items():
        try:
            found[name] = still(codec)
        except (av.FFmpegError, ValueError) as error:
            print(f"media: no {name} here ({error})")
    return found


def tried(read: Callable[[], Any]) -> tuple[Any, MediaError | None]:
    """What a reader gives, or how it refuses."""
    try:
        return read(), None
    except MediaError as error:
        return None, error


def use(path: Path, content: bytes) -> str | None:
    """Look into a file and read it; words where the two don't agree about it."""
    path.write_bytes(content)
    info, refused = tried(lambda: probe(path))
    frames, no_frames = tried(lambda: read_frames(path, 4, 64))
    sound, no_sound = tried(lambda: read_waveform(path, 22050))
    assert frames is None or frames.shape == (4, 64, 64, 3), frames.shape
    assert sound is None or (np.isfinite(sound).all() and len(sound)), "sound that isn't numbers"
    if refused:
        if frames is not None or sound is not None:
            return f"disagreement: probe says {refused}, but it is read"
        raise refused
    for kind, codec, fault in [("pictures", info.video, no_frames), ("sound", info.audio, no_sound)]:
        missing = isinstance(fault, MissingTrack)
        if (codec is None) != missing or (fault and not missing):
            return f"disagreement: probe says {codec} of its {kind}, reading says {fault}"
    return None


def cases(seed: int, folder: Path, n: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Good files of each kind in turn, damaged."""
    good = good_files(folder)
    kinds = list(good)
    for number in range(n):
        random, kind = np.random.default_rng([seed, number]), kinds[number % len(kinds)]
        name = f"case-{number}.{kind.partition('.')[2]}"
        yield name, partial(use, folder / name, damaged(good[kind], random))
