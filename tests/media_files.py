"""Small media files of any container and codec, whose pictures say which frame they are and whose sound says when."""

import os
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


@contextmanager
def ordinary_priority():
    """SVT-AV1 gives the thread that calls it real-time priority where it may, before all other programs; undo that."""
    known = hasattr(os, "sched_getscheduler")
    policy, priority = (os.sched_getscheduler(0), os.sched_getparam(0)) if known else (None, None)
    try:
        yield
    finally:
        if known:
            os.sched_setscheduler(0, policy, priority)


VIDEO = {
    "h264": ("libx264", "yuv420p", {"preset": "ultrafast"}),
    "hevc": ("libx265", "yuv420p", {"preset": "ultrafast", "x265-params": "log-level=error:pools=none"}),
    "vp8": ("libvpx", "yuv420p", {"deadline": "realtime", "cpu-used": "8"}),
    "vp9": ("libvpx-vp9", "yuv420p", {"deadline": "realtime", "cpu-used": "8"}),
    "av1": ("libsvtav1", "yuv420p", {"preset": "8", "svtav1-params": "lp=1"}),
    "mpeg4": ("mpeg4", "yuv420p", {"q:v": "3"}),
    "mpeg2": ("mpeg2video", "yuv420p", {}),
    "mjpeg": ("mjpeg", "yuvj420p", {}),
    "ffv1": ("ffv1", "yuv444p", {}),
}
AUDIO = {
    "aac": ("aac", "fltp", {"aac_coder": "fast"}),
    "mp3": ("libmp3lame", "fltp", {}),
    "opus": ("libopus", "flt", {}),
    "vorbis": ("vorbis", "fltp", {"strict": "-2"}),
    "flac": ("flac", "s16", {}),
    "ac3": ("ac3", "fltp", {}),
    "pcm": ("pcm_s16le", "s16", {}),
    "pcm_u8": ("pcm_u8", "u8", {}),
    "pcm_float": ("pcm_f32le", "flt", {}),
}


def picture(number, size):
    """A frame that shows its number as sixteen light or dark fields, two rows of eight; uint8 (height, width, 3)."""
    height, width = size
    bits = (number >> np.arange(16)[::-1] & 1).reshape(2, 8)
    grey = np.where(bits, 225, 30).astype(np.uint8)
    grey = grey[np.arange(height) * 2 // height][:, np.arange(width) * 8 // width]
    return np.repeat(grey[:, :, None], 3, axis=2)


def numbers(frames):
    """The numbers that frames show; uint8 (frames, height, width, 3) → list of int."""
    grey = frames.astype(float).mean(axis=3)
    n, height, width = grey.shape
    rows = [round(height * (i + 0.5) / 2) for i in range(2)]
    columns = [round(width * (i + 0.5) / 8) for i in range(8)]
    lit = grey[:, rows][:, :, columns] > 127
    return (lit.reshape(n, 16) @ (1 << np.arange(16)[::-1])).tolist()


def pitch(seconds):
    """The frequency that sounds at some time: 300 Hz, and 7 Hz more every ten seconds, around 400 steps."""
    return 300.0 + 7.0 * (np.floor(np.asarray(seconds) / 10) % 400)


def heard(waveform, sample_rate):
    """The loudest frequency of a waveform."""
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return float(spectrum.argmax() * sample_rate / len(waveform))


def _samples(begin, end, sample_rate, channels, form, loud):
    """The sound between two sample numbers, as PyAV wants it."""
    t = np.arange(begin, end) / sample_rate
    wave = 0.5 * np.sin(2 * np.pi * pitch(t) * t)
    gains = np.ones(channels) if loud is None else np.array([float(i in loud) for i in range(channels)])
    wave = gains[:, None] * wave
    kinds = {"s16": (np.int16, 32767, 0), "u8": (np.uint8, 127, 128), "flt": (np.float32, 1, 0)}
    kind, scale, middle = kinds[form.removesuffix("p")]
    wave = (wave * scale + middle).astype(kind)
    return np.ascontiguousarray(wave if form.endswith("p") else wave.T.reshape(1, -1))


def _add_video(container, codec, size, frame_rate, variable, pixel_format, rotation, flip, gop):
    """The video stream, before anything is written."""
    name, default, options = VIDEO[codec]
    stream = container.add_stream(name, rate=Fraction(frame_rate).limit_denominator(1001), options=options)
    stream.height, stream.width = size
    stream.pix_fmt = pixel_format or default
    if variable:
        stream.codec_context.time_base = Fraction(1, 1000)
    stream.codec_context.thread_count = 1
    if gop:
        stream.codec_context.gop_size = gop
    if rotation or flip:
        stream.set_display_rotation(rotation, hflip=flip)
    return stream


def _add_audio(container, codec, layout, sample_rate):
    """The audio stream, before anything is written."""
    name, form, options = AUDIO[codec]
    stream = container.add_stream(name, rate=sample_rate, layout=layout, format=form, options=options)
    stream.codec_context.thread_count = 1
    return stream, form


@ordinary_priority()
def write_media(
    path,
    video_codec="h264",  # a name in VIDEO, or None
    audio_codec="aac",  # a name in AUDIO, or None
    seconds=2.0,  # of both streams
    size=(64, 96),  # height, width
    frame_rate=10,  # frames a second
    times=None,  # explicit seconds of the frames, rising: a variable frame rate
    rotation=0,  # degrees counter-clockwise by which a player turns the picture
    flip=False,  # whether a player mirrors it, left to right, after turning it
    layout="mono",  # of the channels, such as "stereo" or "5.1"
    sample_rate=22050,
    pixel_format=None,  # None: what is usual for the codec
    seed=0,  # number of the first frame
    gop=None,  # frames between key frames
    audio_seconds=None,  # length of the sound, where it differs
    loud=None,  # channels that sound, by position; None: all
    gap=(0, 0),  # whole seconds, from and to, in which the sound has no samples, not even silent ones
    container_options=None,  # such as {"movflags": "faststart"}
    metadata=None,
    container_format=None,  # where the file name doesn't tell
):
    """Write a media file; frame i shows the number seed + i, the sound is that of `pitch`. Returns `path`."""
    variable = times is not None
    times = np.asarray(times) if variable else np.arange(round(seconds * frame_rate)) / frame_rate
    audio_seconds = seconds if audio_seconds is None else audio_seconds
    with av.open(str(path), "w", format=container_format, options=container_options or {}) as container:
        container.metadata.update(metadata or {})
        video = audio = None
        if video_codec:
            video = _add_video(container, video_codec, size, frame_rate, variable, pixel_format, rotation, flip, gop)
        if audio_codec:
            audio, form = _add_audio(container, audio_codec, layout, sample_rate)
            channels = len(av.AudioLayout(layout).channels)
        for second in range(int(np.ceil(max(seconds, audio_seconds)))):  # interleaved, as memory must not grow
            if video:
                base = Fraction(1, 1000) if variable else 1 / video.codec_context.framerate
                for i in np.flatnonzero((times >= second) & (times < second + 1)).tolist():
                    frame = av.VideoFrame.from_ndarray(picture(seed + i, size), format="rgb24")
                    frame = frame.reformat(format=video.pix_fmt, threads=1)
                    frame.pts, frame.time_base = round(float(times[i]) / base), base
                    container.mux(video.encode(frame))
            if audio and not gap[0] <= second < gap[1]:
                begin, end = (round(min(s, audio_seconds) * sample_rate) for s in (second, second + 1))
                if end > begin:
                    samples = _samples(begin, end, sample_rate, channels, form, loud)
                    frame = av.AudioFrame.from_ndarray(samples, format=form, layout=layout)
                    frame.sample_rate, frame.pts, frame.time_base = sample_rate, begin, Fraction(1, sample_rate)
                    container.mux(audio.encode(frame))
        for stream in filter(None, [video, audio]):
            container.mux(stream.encode(None))
    return Path(path)


def cut(source, target, share):
    """The first part of a file, as a broken download leaves it."""
    content = Path(source).read_bytes()
    Path(target).write_bytes(content[: int(len(content) * share)])
    return Path(target)
