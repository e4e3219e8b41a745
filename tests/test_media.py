"""Real files of many containers, codecs and shapes give the right frames and the right sound."""

import subprocess
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from conftest import ROOT, environment
from media_files import cut, heard, numbers, picture, write_media

from mmdisaster.media import sound as reader
from mmdisaster.media.files import MediaError, MissingTrack
from mmdisaster.media.frames import read_frames
from mmdisaster.media.sound import read_waveform, sound_seconds
from mmdisaster.media.survey import probe
from mmdisaster.static.extractors import AudioExtractor
from mmdisaster.static.soundnet import LONG, RATE, SoundNetFeatures, random_soundnet, soundnet_steps

FILES = [  # container, codecs of pictures and sound
    ("mp4", "h264", "aac"),
    ("mp4", "hevc", "mp3"),
    ("mp4", "vp9", "opus"),
    ("mp4", "av1", "flac"),
    ("mp4", "mpeg4", "ac3"),
    ("mov", "h264", "pcm"),
    ("mov", "hevc", "aac"),
    ("mov", "mjpeg", "mp3"),
    ("mkv", "h264", "vorbis"),
    ("mkv", "hevc", "opus"),
    ("mkv", "vp9", "mp3"),
    ("mkv", "av1", "pcm"),
    ("mkv", "mpeg4", "aac"),
    ("mkv", "ffv1", "flac"),
    ("webm", "vp8", "vorbis"),
    ("webm", "vp9", "opus"),
    ("webm", "av1", "opus"),
    ("avi", "mpeg4", "mp3"),
    ("avi", "mpeg4", "pcm"),
    ("avi", "h264", "pcm"),
    ("avi", "mjpeg", "aac"),
    ("ts", "h264", "aac"),
    ("flv", "h264", "mp3"),
]
CLOSED = [  # containers that say how long they are
    ("mp4", "h264", "aac", {"movflags": "faststart"}),
    ("mov", "h264", "pcm", {"movflags": "faststart"}),
    ("mkv", "h264", "aac", {}),
    ("webm", "vp9", "opus", {}),
    ("avi", "mpeg4", "pcm", {}),
]


def shape(audio):
    """The sample rate and layout that a codec takes."""
    rate = {"opus": 48000, "ac3": 48000, "mp3": 44100}.get(audio, 22050)
    return {"audio_codec": audio, "sample_rate": rate, "layout": "stereo" if audio == "vorbis" else "mono"}


@pytest.mark.parametrize("container, video, audio", FILES)
def test_containers_and_codecs(tmp_path, container, video, audio):
    path = write_media(tmp_path / f"a.{container}", video_codec=video, **shape(audio))
    off = 2 if container == "avi" else 0  # its time stamps are frame numbers, moved to make room for the coder's delay
    for frames, expected in [
        (read_frames(path, 4), [2, 7, 12, 17]),
        (read_frames(path, 2, 32, 0.6, 1.6), [8, 13]),
    ]:
        assert np.abs(np.subtract(numbers(frames), expected)).max() <= off
    sound = read_waveform(path)
    assert abs(len(sound) - 44_100) < 2_500 and abs(heard(sound, 22_050) - 300) < 1
    part = read_waveform(path, 8_000, 0.5, 1.0)
    assert len(part) == 4_000 and abs(heard(part, 8_000) - 300) <= 2 and 0.3 < np.abs(part).max() < 0.9
    info = probe(path)
    assert abs(info.seconds - 2) < 0.2 and (info.height, info.width, info.channels > 0) == (64, 96, True)


@pytest.mark.parametrize("container, video, audio", FILES)
def test_parts_far_from_the_beginning(tmp_path, container, video, audio):
    path = write_media(
        tmp_path / f"a.{container}", video_codec=video, seconds=35, gop=20, size=(64, 64), **shape(audio)
    )
    off = 2 if container == "avi" else 0
    assert np.abs(np.subtract(numbers(read_frames(path, 2, None, 31.15, 33.15)), [316, 326])).max() <= off
    assert abs(heard(read_waveform(path, 22_050, 22, 24), 22_050) - 314) < 1
    assert abs(heard(read_waveform(path, 22_050, 31, 33), 22_050) - 321) < 1
    assert abs(numbers(read_frames(path, 3))[1] - 175) <= 1 + off  # jumps within the file


@pytest.mark.parametrize("layout", ["mono", "stereo", "2.1", "3.0", "quad", "5.0", "5.1", "6.1", "7.1"])
def test_channels(tmp_path, layout):
    """All channels play the same, so whatever the mix, it is as loud as each of them."""
    for codec in ["pcm", "flac"]:
        path = write_media(tmp_path / "a.mkv", video_codec=None, audio_codec=codec, layout=layout, sample_rate=48_000)
        sound = read_waveform(path)
        assert abs(len(sound) - 44_100) < 10 and abs(np.abs(sound).max() - 0.5) < 0.01
        assert abs(heard(sound, 22_050) - 300) < 1


def test_the_voice_in_the_middle_is_heard_and_the_rumble_is_not(tmp_path):
    loud = []
    for channel in range(6):  # of 5.1: left, right, centre, low effects, and two behind
        path = write_media(tmp_path / "a.wav", video_codec=None, audio_codec="pcm", layout="5.1", loud=[channel])
        loud.append(np.abs(read_waveform(path)).max() / 0.5)
    assert np.isclose(sum(loud), 1, atol=0.01) and loud[3] == 0 and loud[2] > loud[0] > loud[4] > 0


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 32000, 44100, 48000, 88200, 96000])
def test_sample_rates(tmp_path, rate):
    for codec, name in [("aac", "a.mp4"), ("pcm", "a.mkv")]:
        path = write_media(tmp_path / name, video_codec=None, audio_codec=codec, sample_rate=rate)
        sound = read_waveform(path)
        assert abs(len(sound) - 44_100) < 10 and abs(heard(sound, 22_050) - 300) < 1


@pytest.mark.parametrize(
    "codec, pixels, size",
    [
        ("h264", "gray", (64, 96)),
        ("ffv1", "gray", (65, 97)),
        ("h264", "yuv422p", (64, 96)),
        ("h264", "yuv444p", (65, 97)),
        ("h264", "yuv420p10le", (64, 96)),
        ("hevc", "yuv420p10le", (64, 96)),
        ("vp9", "yuv420p", (67, 101)),
        ("h264", "yuv420p", (16, 18)),
        ("mpeg4", "yuv420p", (360, 202)),
    ],
)
def test_pixels_and_sizes(tmp_path, codec, pixels, size):
    path = write_media(tmp_path / "a.mkv", video_codec=codec, audio_codec=None, pixel_format=pixels, size=size)
    frames = read_frames(path, 4)
    assert frames.shape == (4, *size, 3) and numbers(frames) == [2, 7, 12, 17]
    assert np.abs(frames[0].astype(int) - picture(2, size)).mean() < 15
    assert numbers(read_frames(path, 4, 75)) == [2, 7, 12, 17]


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_marks_of_rotation(tmp_path, container, rotation, flip):
    """NumPy's own turning and mirroring is what the mark asks for."""
    stored = picture(0b1011, (64, 96))
    path = write_media(tmp_path / f"a.{container}", audio_codec=None, rotation=rotation, flip=flip, seed=0b1011)
    shown = np.rot90(stored, rotation // 90)
    shown = shown[:, ::-1] if flip else shown
    first = read_frames(path, 1, end=0.1)[0]
    assert first.shape == shown.shape and np.abs(first.astype(int) - shown).mean() < 10
    small = read_frames(path, 1, shown.shape[:2], end=0.1)[0]
    assert np.abs(small.astype(int) - shown).mean() < 10
    assert (probe(path).height, probe(path).width) == shown.shape[:2]


@pytest.mark.parametrize("container, codec", [("mp4", "h264"), ("mov", "hevc"), ("mkv", "h264"), ("webm", "vp9")])
def test_variable_frame_rate(tmp_path, container, codec):
    """What is on show at a time is the last frame that began before it."""
    steps = np.random.default_rng(1).choice([0.02, 0.04, 0.2, 0.5, 2.0], 60)
    times = np.round(np.concatenate([[0], np.cumsum(steps)]), 3)
    path = write_media(tmp_path / f"a.{container}", codec, None, times=times, seconds=times[-1] + 0.1)
    for start, end in [(0.01, 30.0), (12.3, 14.9)]:
        wanted = start + (np.arange(20) + 0.5) * (end - start) / 20
        expected = np.searchsorted(times, wanted + 0.0005, side="right") - 1
        assert numbers(read_frames(path, 20, None, start, end)) == expected.tolist()


def test_half_a_second(tmp_path):
    path = write_media(tmp_path / "a.mp4", seconds=0.5)
    assert numbers(read_frames(path, 10)) == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4] and len(read_waveform(path)) == 11_025


def test_gaps_in_the_sound_are_silence(tmp_path):
    path = write_media(tmp_path / "a.mkv", audio_codec="pcm", seconds=5, gap=(2, 4))
    sound = read_waveform(path)
    loud = np.abs(sound[: 5 * 22_050].reshape(50, -1)).max(axis=1) > 0.1  # tenths of a second
    assert loud.tolist() == [True] * 20 + [False] * 20 + [True] * 10
    assert (read_waveform(path, start=1.5, end=4.5) == sound[33_075:99_225]).all()
    with pytest.raises(MissingTrack, match="has no audio between 2.5 s and 3.5 s"):
        read_waveform(path, start=2.5, end=3.5)


@pytest.fixture(scope="module")
def listener():
    tones = [np.sin(np.arange(20_000, dtype=np.float32) / rate) / 2 for rate in (4, 8, 16)]
    return AudioExtractor(SoundNetFeatures(random_soundnet(0, tones)))


@pytest.mark.parametrize("gap", [(50, 60), (0, 56), (56, 140)], ids=["at the end of a piece", "first", "a whole piece"])
def test_a_long_sound_goes_on_after_a_gap(tmp_path, listener, gap):
    """The first piece ends at 53.5 s, the next at 101 s; what one network makes of all of it at once is the oracle."""
    path = write_media(tmp_path / "a.mkv", "mpeg4", "pcm", 150, (32, 64), 2, gap=gap, sample_rate=RATE)
    whole = np.zeros(150 * RATE, np.float32)
    for begin, end in [(0, gap[0]), (gap[1], 150)]:
        if end > begin:
            whole[begin * RATE : end * RATE] = read_waveform(path, RATE, begin, end)
    found = listener.read({"media": path.name}, tmp_path)
    assert len(found) == soundnet_steps(150 * RATE)
    assert np.allclose(found, listener.encode([whole])[0], atol=1e-3)
    if gap == (56, 140):
        assert listener.read({"media": path.name, "start": 60.0, "end": 130.0}, tmp_path) is None  # nothing but the gap
        short = listener.read({"media": path.name, "start": 54.0, "end": 130.0}, tmp_path)  # two seconds before it
        assert short.shape == (2 * RATE,) and len(short) < LONG


def test_how_long_sound_lasts_is_known_without_decoding(tmp_path):
    path = write_media(tmp_path / "a.mkv", "mpeg4", "pcm", seconds=6, audio_seconds=4, gap=(2, 3))
    assert abs(sound_seconds(path) - 4) < 0.01 and abs(sound_seconds(path, 1, 9) - 3) < 0.01
    content = path.read_bytes()
    (tmp_path / "b.mkv").write_bytes(content.replace(b"DURATION", b"NOTATION"))  # a file without these tags
    assert content.count(b"DURATION") == 2 and abs(sound_seconds(tmp_path / "b.mkv") - 4) < 0.01
    with pytest.raises(MissingTrack, match="has no audio after 4.000 s"):
        sound_seconds(tmp_path / "b.mkv", 5)


def test_sound_that_begins_late(tmp_path):
    sound = read_waveform(write_media(tmp_path / "a.mkv", audio_codec="pcm", seconds=3, gap=(0, 1)))
    assert len(sound) == 3 * 22_050 and not sound[:22_000].any() and np.abs(sound[22_100:]).max() > 0.4


def test_sound_that_changes_rate_and_channels():
    """As broadcasts do between a programme and the next."""

    def frame(start, rate, layout, channels):
        t = start + np.arange(rate) / rate
        tone = np.tile(0.5 * np.sin(2 * np.pi * 300 * t), (channels, 1)).astype(np.float32)
        made = av.AudioFrame.from_ndarray(tone, format="fltp", layout=layout)
        made.sample_rate, made.pts, made.time_base = rate, int(start * rate), Fraction(1, rate)
        return float(start), made

    frames = [frame(0, 48_000, "stereo", 2), frame(1, 48_000, "5.1", 6), frame(2, 32_000, "mono", 1)]
    sound = reader._placed(reader._runs(iter(frames), 22_050), 0.0, 3.0, 22_050)
    t = np.arange(3 * 22_050) / 22_050
    assert len(sound) >= 66_100 and np.abs(sound - 0.5 * np.sin(2 * np.pi * 300 * t)[: len(sound)]).mean() < 0.02


@pytest.mark.parametrize("container, video, audio", [f for f in FILES if f[0] in ("mp4", "mov", "mkv", "webm")])
def test_one_track_longer_than_the_other(tmp_path, container, video, audio):
    path = write_media(tmp_path / f"a.{container}", video, seconds=2, audio_seconds=4, **shape(audio))
    assert abs(len(read_waveform(path)) - 4 * 22_050) < 2_500
    with pytest.raises(MissingTrack, match="has no video after"):
        read_frames(path, 2, None, 2.5, 3.5)
    path = write_media(tmp_path / f"b.{container}", video, seconds=4, audio_seconds=2, **shape(audio))
    assert numbers(read_frames(path, 4)) == [5, 15, 25, 35]
    with pytest.raises(MissingTrack, match="has no audio"):
        read_waveform(path, 22_050, 2.5, 3.5)


@pytest.mark.parametrize("container", ["mp4", "mkv", "avi"])
def test_missing_tracks(tmp_path, container):
    silent = write_media(tmp_path / f"silent.{container}", "mpeg4", None)
    blind = write_media(tmp_path / f"blind.{container}", None, "mp3", sample_rate=44_100)
    with pytest.raises(MissingTrack, match="has no audio stream"):
        read_waveform(silent)
    with pytest.raises(MissingTrack, match="has no video stream"):
        read_frames(blind, 2)
    assert numbers(read_frames(silent, 4)) == [2, 7, 12, 17] and len(read_waveform(blind)) > 44_000
    assert probe(silent).audio is None and probe(blind).video is None


def test_the_picture_on_the_cover_is_no_video(tmp_path):
    with av.open(str(tmp_path / "song.mp4"), "w") as container:
        cover, sound = container.add_stream("mjpeg", rate=1), container.add_stream("aac", rate=22_050, layout="mono")
        cover.width, cover.height, cover.pix_fmt = 96, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        frame = av.VideoFrame.from_ndarray(picture(1, (64, 96)), format="rgb24")
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 22_050), np.float32), format="fltp", layout="mono")
        tone.sample_rate = 22_050
        for stream, item in [(cover, frame), (sound, tone), (cover, None), (sound, None)]:
            container.mux(stream.encode(item))
    with pytest.raises(MissingTrack, match="has no video stream"):
        read_frames(tmp_path / "song.mp4", 1)
    assert probe(tmp_path / "song.mp4").video is None


@pytest.mark.parametrize("container, video, audio, options", CLOSED)
def test_files_that_were_cut_off(tmp_path, container, video, audio, options):
    """Neither half a video nor its last frame again and again."""
    whole = write_media(tmp_path / f"a.{container}", video, seconds=12, container_options=options, **shape(audio))
    half = cut(whole, tmp_path / f"half.{container}", 0.5)
    for read in [lambda: read_frames(half, 10), lambda: read_waveform(half), lambda: probe(half)]:
        with pytest.raises(MediaError, match="is cut off|can't be decoded"):
            read()
    with pytest.raises(MediaError, match="is cut off|can't be decoded"):
        read_frames(half, 2, None, 10, 11)


def test_what_is_no_media_is_not_opened_as_such(tmp_path):
    """FFmpeg would show a text as an animation, and follow a playlist out of the corpus."""
    (tmp_path / "corpus").mkdir()
    write_media(tmp_path / "secret.ts")
    lists = {
        "a.m3u8": "#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:2,\n../secret.ts\n#EXT-X-ENDLIST\n",
        "a.mp4": "ffconcat version 1.0\nfile ../secret.ts\n",
    }
    for name, content in {
        **lists,
        "a.txt": "The water rises. " * 99,
        "a.srt": "1\n00:00:00,000 --> 00:00:01,000\nhi\n",
    }.items():
        (tmp_path / "corpus" / name).write_text(content)
        for read in [lambda path: read_frames(path, 2), read_waveform, probe]:
            with pytest.raises(MediaError, match="is not a video or sound file of a known kind"):
                read(tmp_path / "corpus" / name)


def test_titles_in_other_encodings_do_no_harm(tmp_path):
    path = write_media(tmp_path / "a.avi", "mpeg4", "pcm", metadata={"title": "a cafXX clip"})
    content = path.read_bytes()
    assert content.count(b"cafXX") == 1
    path.write_bytes(content.replace(b"cafXX", b"caf\xe9\xe9"))
    assert numbers(read_frames(path, 4)) == [2, 7, 12, 17] and probe(path).audio


def test_sound_without_a_stated_length(tmp_path):
    """FFmpeg guesses these lengths from the bit rate of the first seconds."""
    for name, codec, options in [("a.mp3", "mp3", {"write_xing": "0"}), ("a.aac", "aac", {})]:
        form = "adts" if codec == "aac" else None
        path = write_media(tmp_path / name, None, codec, seconds=25, container_format=form, container_options=options)
        assert abs(len(read_waveform(path)) / 22_050 - 25) < 0.1 and abs(probe(path).seconds - 25) < 0.1
        assert abs(heard(read_waveform(path, 22_050, 22, 24), 22_050) - 314) < 1


HOUR = """
import pathlib, re, resource, sys, time
import numpy as np
sys.path.insert(0, "tests")
from media_files import heard, numbers
from mmdisaster.media.frames import read_frames
from mmdisaster.media.sound import read_waveform

path = sys.argv[1]
begin = time.process_time()
whole = read_frames(path, 7200, 8)
once = time.process_time() - begin
del whole
begin = time.process_time()
for i in range(100):
    start = 36.0 * i
    assert numbers(read_frames(path, 4, 32, start, start + 8)) == [round(2 * start) + k for k in (2, 6, 10, 14)], start
    sound = read_waveform(path, 22050, start + 5, start + 6)
    assert abs(heard(sound, 22050) - 300 - 7 * ((start + 5) // 10)) < 2, start
print((time.process_time() - begin) / once)
print(len(read_waveform(path)) / 22050)
status = pathlib.Path("/proc/self/status")  # `ru_maxrss` counts what the process was before it became this program
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if status.is_file():
    peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", status.read_text())[1])
print(peak / 1024)
"""


def test_an_hour_cut_into_a_hundred_clips(tmp_path):
    """100 clips cost less than reading it all six times (from the beginning, they would cost 50), and little memory."""
    path = write_media(tmp_path / "hour.mkv", "mpeg4", "pcm", 3600, (32, 64), 2, gop=20, sample_rate=8_000)
    command = [sys.executable, "-c", HOUR, str(path)]
    result = subprocess.run(command, cwd=ROOT, env=environment(ROOT), capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    share, seconds, megabytes = map(float, result.stdout.split())
    assert share < 6 and abs(seconds - 3600) < 1 and megabytes < 700, result.stdout
