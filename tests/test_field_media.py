"""Media as they come from the field: damaged, joined, false in what they state, hostile; with files made here."""

import io
import os
import shutil
import socket
import struct
import threading
import time
import wave
from fractions import Fraction

import av
import numpy as np
import pytest
from conftest import ROOT
from media_files import cut, heard, numbers, picture, write_media
from PIL import Image

from mmdisaster.data.inspection import format_problems, inspect_corpus
from mmdisaster.media.containers import stated_bytes, stated_crop
from mmdisaster.media.files import MediaError, MissingTrack
from mmdisaster.media.frames import read_frames
from mmdisaster.media.sound import read_waveform
from mmdisaster.media.survey import probe, survey
from mmdisaster.settings.sections import Media

CASES = ROOT.parent / "shared" / "cases" / "media"
SHAPES = [
    ("mp4", "h264", "aac"),
    ("mkv", "mpeg4", "mp3"),
    ("avi", "mjpeg", "pcm"),
    ("ts", "h264", "aac"),
    ("webm", "vp8", "opus"),
]


def made(path, video="h264", audio="aac", **shape):
    rate = {"opus": 48000, "mp3": 44100}.get(audio, 22050)
    return write_media(path, video, audio, **({"sample_rate": rate} | shape))


def remux(source, target, change=lambda number, packet: packet, options=None):
    """Copy a file packet by packet; `change` gets each with its number in the stream."""
    with av.open(str(source)) as old, av.open(str(target), "w", options=options or {}) as new:
        streams = {s.index: new.add_stream_from_template(s) for s in old.streams}
        counts = dict.fromkeys(streams, 0)
        for packet in old.demux():
            index = packet.stream.index
            if packet.size and (packet := change(counts[index], packet)) is not None:
                packet.stream = streams[index]
                new.mux(packet)
            counts[index] += 1
    return target


def agreed(path):
    """Whether a file can be read; everyone must say the same."""
    try:
        info = probe(path)
    except MediaError as error:
        for read in [lambda: read_frames(path, 3, 32), lambda: read_waveform(path)]:
            with pytest.raises(MediaError) as again:
                read()
            assert not isinstance(again.value, MissingTrack) and again.value.reason == error.reason
        return False
    if info.video:
        assert read_frames(path, 3, 32).shape == (3, 32, 32, 3)
    if info.audio:
        assert len(read_waveform(path))
    return True


EXPECTED = {  # of the README of the cases: frames, mean grey value, seconds of sound
    "mjpeg.avi": (20, 54, None),
    "gradient_rotated.heic": (1, 127, None),
    "sample_still_photo.heic": (1, 187, None),
    "newline.mp3": (0, 0, 3.03),
    "bear-id3.mp3": (0, 0, 2.81),
    "one_h264.mp4": (99, 66, 10.0),
    "corrupted.mp4": (49, 126, None),
    "cut.mp4": (60, 72, 6.49),
    "cut.mov": (60, 72, 6.49),
    "sorenson.flv": (100, 125, 4.05),
    "sox.wav": (0, 0, 3.0),
    "off2.mkv": (100, 67, 10.03),
    "silence-2.wma": (0, 0, 3.68),
    "silence-3.wma": (0, 0, 3.68),
    "aac.ts": (100, 67, 10.03),
    "opus10.mka": (0, 0, 39.94),
    "silentfirst.mkv": (50, 60, 5.04),
    "joined.ts": (160, 71, 16.07),
    "crop.mkv": (20, 223, None),
    "interlaced.ts": (49, 125, 4.01),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_cases_from_the_field(name):
    if not (CASES / name).is_file():
        pytest.skip("shared cases are not here")
    frames, mean, seconds = EXPECTED[name]
    assert agreed(CASES / name)
    if frames:
        assert abs(read_frames(CASES / name, frames, 64).mean() - mean) < 2
    if seconds:
        assert abs(len(read_waveform(CASES / name)) / 22_050 - seconds) < 0.05


# --- damage


def test_marks_that_the_library_does_not_know(tmp_path):
    """Exif in each JPEG of a camera's AVI, and in a MOV."""
    for name in ["a.avi", "a.mov", "a.mkv"]:
        with av.open(str(tmp_path / name), "w") as container:
            stream = container.add_stream("mjpeg", rate=10)
            stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
            for i in range(10):
                exif, content = Image.Exif(), io.BytesIO()
                exif[0x0110] = "camera"
                Image.fromarray(picture(i, (64, 96))).save(content, "jpeg", exif=exif)
                packet = av.Packet(content.getvalue())
                packet.stream, packet.pts, packet.dts, packet.time_base = stream, i, i, Fraction(1, 10)
                packet.is_keyframe = True
                container.mux(packet)
        assert agreed(tmp_path / name) and numbers(read_frames(tmp_path / name, 10)) == list(range(10))


@pytest.mark.parametrize("container, video, audio", SHAPES)
def test_a_damaged_packet_costs_what_it_holds(tmp_path, container, video, audio):
    path = made(tmp_path / f"a.{container}", video, audio, seconds=4, gop=10)
    broken = tmp_path / f"b.{container}"

    def damage(number, packet):
        if number != 20 or packet.stream.type != "video":
            return packet
        new = av.Packet(b"\xff" * packet.size)
        new.pts, new.dts, new.time_base, new.stream = packet.pts, packet.dts, packet.time_base, packet.stream
        return new

    remux(path, broken, damage)
    assert agreed(broken)
    found, clean = numbers(read_frames(broken, 40)), numbers(read_frames(path, 40))
    assert (
        sum(a == b for a, b in zip(found, clean, strict=True)) >= 28
    )  # at most the pictures up to the next key frame differ
    assert abs(len(read_waveform(broken)) - len(read_waveform(path))) < 100


@pytest.mark.parametrize("tail", [b"\n", b"\0" * 700, b"TAG" + b" " * 125, b"Last-Modified: yesterday\r\n"])
@pytest.mark.parametrize(
    "name, codec", [("a.mp3", "mp3"), ("a.aac", "aac"), ("a.mp4", "aac"), ("a.wav", "pcm"), ("a.mkv", "opus")]
)
def test_stray_bytes_at_the_end(tmp_path, name, codec, tail):
    form = "adts" if name == "a.aac" else None
    path = made(tmp_path / name, None, codec, seconds=3, container_format=form)
    clean = read_waveform(path)
    with path.open("ab") as file:
        file.write(tail)
    assert agreed(path) and abs(len(read_waveform(path)) - len(clean)) < 2_500


@pytest.mark.parametrize("container, video, audio", SHAPES)
def test_a_cut_last_frame_and_a_missing_half(tmp_path, container, video, audio):
    options = {"movflags": "faststart"} if container == "mp4" else {}
    path = made(tmp_path / f"a.{container}", video, audio, seconds=6, container_options=options)
    assert agreed(cut(path, tmp_path / f"most.{container}", 0.97))
    assert "bytes are missing" in str(probe(tmp_path / f"most.{container}").missing) or container == "ts"
    if container != "ts":  # which states nothing
        assert not agreed(cut(path, tmp_path / f"half.{container}", 0.5))


def test_what_is_missing_is_told_by_check(tmp_path):
    made(tmp_path / "a.mp4", seconds=4, container_options={"movflags": "faststart"})
    cut(tmp_path / "a.mp4", tmp_path / "b.mp4", 0.9)
    rows = "clip_id,video_id,media,text,labels\n" + "".join(f"{n},{n},{n}.mp4,,Flood\n" for n in "ab")
    (tmp_path / "m.csv").write_text(rows)
    found = inspect_corpus(tmp_path / "m.csv")
    assert "should be whole, but 10.0% of its bytes are missing" in format_problems(found) and found.unreadable == 0
    strict = inspect_corpus(tmp_path / "m.csv", limits=Media(missing=0.05))
    assert strict.unreadable == 1 and "is cut off: it claims" in format_problems(strict)


def test_everyone_agrees_about_mutated_files(tmp_path):
    random = np.random.default_rng(5)
    outcomes = []
    for container, video, audio in SHAPES:
        content = made(tmp_path / f"a.{container}", video, audio, seconds=2).read_bytes()
        for number in range(6):
            bad = bytearray(content)
            for _ in range(2 ** (number % 6)):
                place, length = random.integers(0, len(bad) - 1), random.integers(1, 200)
                bad[place : place + length] = random.bytes(min(length, len(bad) - place))
            path = tmp_path / f"{number}.{container}"
            path.write_bytes(bad)
            outcomes.append(agreed(path))
    assert 5 < sum(outcomes) < 30


# --- what files state about themselves


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0x80000000])
def test_sound_written_into_a_pipe(tmp_path, size):
    path = made(tmp_path / "a.wav", None, "pcm", seconds=3)
    content = path.read_bytes()
    place = content.index(b"data")
    riff = min(size + 36, 0xFFFFFFFF) if size else 0
    path.write_bytes(
        b"RIFF" + struct.pack("<I", riff) + content[8 : place + 4] + struct.pack("<I", size) + content[place + 8 :]
    )
    assert agreed(path) and abs(len(read_waveform(path)) / 22_050 - 3) < 0.01


@pytest.mark.parametrize("stated", ["99999:59:59.000000000", "00:00:00.000000000", "nonsense"])
def test_a_false_length_in_matroska(tmp_path, stated):
    path = made(tmp_path / "a.mkv", seconds=4)
    content = path.read_bytes()
    begin = content.index(b"00:00:04")
    path.write_bytes(content.replace(content[begin : begin + 18], stated.encode().ljust(18, b"\0")[:18]))
    began = time.process_time()
    assert agreed(path) and abs(probe(path).seconds - 4) < 0.1 and time.process_time() - began < 5
    assert numbers(read_frames(path, 4)) == [5, 15, 25, 35]


def test_time_stamps_that_start_late(tmp_path):
    path = made(tmp_path / "a.mkv", "mpeg4", "pcm", seconds=4)
    for offset in [2, 1000]:

        def late(number, packet, offset=offset):
            packet.pts, packet.dts = (round(stamp + offset / packet.time_base) for stamp in (packet.pts, packet.dts))
            return packet

        for name in ["b.mkv", "b.mov", "b.nut", "b.ts"]:
            source = path if name != "b.ts" else made(tmp_path / "c.ts", "h264", "aac", seconds=4)
            remux(source, tmp_path / name, late)
            assert agreed(tmp_path / name) and abs(len(read_waveform(tmp_path / name)) / 22_050 - 4) < 0.15, name
            assert numbers(read_frames(tmp_path / name, 4)) in ([5, 15, 25, 35], [4, 14, 24, 34], [5, 15, 24, 34]), name


def test_a_long_last_picture(tmp_path):
    path = write_media(tmp_path / "a.mp4", "h264", "aac", times=[0, 0.5, 1.0], seconds=1.04, audio_seconds=6)
    assert agreed(path) and abs(len(read_waveform(path)) / 22_050 - 6) < 0.1
    with av.open(str(tmp_path / "b.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height = 96, 64
        for i, (pts, lasts) in enumerate([(0, 10), (10, 10), (20, 80)]):
            frame = av.VideoFrame.from_ndarray(picture(i, (64, 96)), format="rgb24").reformat(format="yuv420p")
            frame.pts, frame.time_base = pts, Fraction(1, 10)
            for packet in stream.encode(frame):
                packet.duration = lasts
                container.mux(packet)
        container.mux(stream.encode(None))
    assert (
        abs(probe(tmp_path / "b.mp4").seconds - 10) < 0.2
        and numbers(read_frames(tmp_path / "b.mp4", 10))[2:] == [2] * 8
    )


# --- the clock


@pytest.mark.parametrize("audio, container", [("opus", "mkv"), ("aac", "mp4"), ("mp3", "mkv")])
@pytest.mark.parametrize("lost", [10, 20])
def test_lost_packets_leave_the_rest_in_its_place(tmp_path, audio, container, lost):
    path = made(tmp_path / f"a.{container}", None, audio, seconds=35)
    remux(path, tmp_path / f"b.{container}", lambda number, packet: packet if number % lost else None)
    sound = read_waveform(tmp_path / f"b.{container}")
    assert abs(len(sound) / 22_050 - 35) < 0.2
    for second in [10, 20, 30]:  # where the pitch changes
        before, after = (sound[round((second + at) * 22_050) :][: 22_050 // 2] for at in (-0.6, 0.1))
        assert (
            abs(heard(before, 22_050) - (293 + 0.7 * second)) < 4
            and abs(heard(after, 22_050) - (300 + 0.7 * second)) < 4
        )


def joined(path, shift):
    """Two MPEG-TS one after the other, whose clocks differ."""
    first, second = (made(path.with_name(f"{i}.ts"), seed=20 * i, seconds=2) for i in range(2))

    def moved(number, packet):
        packet.pts, packet.dts = (round(stamp + shift / packet.time_base) for stamp in (packet.pts, packet.dts))
        return packet

    remux(second, path.with_name("moved.ts"), moved)
    path.write_bytes(first.read_bytes() + path.with_name("moved.ts").read_bytes())
    return path


@pytest.mark.parametrize("hours", [0, 1, 20])
def test_streams_that_were_joined_go_on(tmp_path, hours):
    path = joined(tmp_path / "a.ts", 3600 * hours)
    began = time.process_time()
    assert agreed(path) and abs(probe(path).seconds - 4) < 0.3
    assert np.abs(np.subtract(numbers(read_frames(path, 8)), [2, 7, 12, 17, 22, 27, 32, 37])).max() <= 1
    assert abs(len(read_waveform(path)) / 22_050 - 4) < 0.3 and time.process_time() - began < 10


# --- which stream, and which part of it


@pytest.mark.parametrize("container", ["mkv", "mov"])
def test_the_default_stream_is_read(tmp_path, container):
    paths = [
        made(tmp_path / f"{i}.mkv", "mpeg4", "pcm", seconds=2, seed=40 * i, loud=[] if i == 0 else None)
        for i in range(2)
    ]
    with av.open(str(tmp_path / f"a.{container}"), "w") as new:
        files = [av.open(str(path)) for path in paths]
        streams = {(i, s.index): new.add_stream_from_template(s) for i, file in enumerate(files) for s in file.streams}
        for (i, _), stream in streams.items():
            stream.disposition = av.stream.Disposition.default if i == 1 else av.stream.Disposition.comment
        packets = [(float(p.dts * p.time_base), i, p) for i, file in enumerate(files) for p in file.demux() if p.size]
        for _, i, packet in sorted(packets, key=lambda item: item[:2]):
            packet.stream = streams[i, packet.stream.index]
            new.mux(packet)
    assert numbers(read_frames(tmp_path / f"a.{container}", 4)) == [42, 47, 52, 57]
    assert np.abs(read_waveform(tmp_path / f"a.{container}")).max() > 0.3


def test_the_clean_aperture_of_mov(tmp_path):
    """A box that hides the upper and lower quarter, put into a real file whose index is at its end."""
    content = made(tmp_path / "a.mov", "mpeg4", None, seconds=1).read_bytes()
    clap = struct.pack(">I4sIIIIiIiI", 40, b"clap", 96, 1, 32, 1, 0, 1, 0, 1)
    entry = content.index(b"mp4v", content.index(b"stsd")) - 4
    end = entry + int.from_bytes(content[entry : entry + 4], "big")
    new = bytearray(content[:end] + clap + content[end:])
    for kind in [b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd", b"mp4v"]:
        place = new.index(kind, new.index(b"moov") if kind != b"mp4v" else entry) - 4
        new[place : place + 4] = (int.from_bytes(new[place : place + 4], "big") + 40).to_bytes(4, "big")
    (tmp_path / "b.mov").write_bytes(new)
    whole, inside = read_frames(tmp_path / "a.mov", 2), read_frames(tmp_path / "b.mov", 2)
    assert stated_crop(tmp_path / "b.mov", "mov,mp4", 0) == (0, 16, 0, 16)
    assert inside.shape == (2, 32, 96, 3) and (inside == whole[:, 16:48]).all()
    assert (probe(tmp_path / "b.mov").height, probe(tmp_path / "b.mov").width) == (32, 96)


@pytest.mark.parametrize("codec, name", [("mpeg2video", "a.ts"), ("mpeg2video", "a.mkv"), ("libx264", "a.mp4")])
def test_interlaced_pictures_show_one_moment(tmp_path, codec, name):
    """Bright at one moment and dark at the next, line by line; blended they would be grey."""
    lines = np.zeros((64, 96, 3), np.uint8)
    lines[::2] = 220
    options = {"flags": "+ildct+ilme"} if codec == "mpeg2video" else {"x264-params": "tff=1", "flags": "+ildct+ilme"}
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.bit_rate = 4_000_000
        graph = av.filter.Graph()
        source = graph.add_buffer(
            width=96, height=64, format=av.VideoFormat("yuv420p"), time_base=stream.codec_context.time_base or 1
        )
        graph.link_nodes(source, graph.add("setfield", "tff"), graph.add("buffersink")).configure()
        for i in range(10):
            frame = av.VideoFrame.from_ndarray(lines, format="rgb24").reformat(format="yuv420p")
            frame.pts = i
            graph.vpush(frame)
            container.mux(stream.encode(graph.vpull()))
        container.mux(stream.encode(None))
    small = read_frames(tmp_path / name, 2, 16)
    assert small.min() > 190
    assert read_frames(tmp_path / name, 2).shape == (2, 64, 96, 3)


# --- names


def test_a_name_is_never_an_address(tmp_path, monkeypatch):
    server, asked = socket.create_server(("127.0.0.1", 0)), []
    thread = threading.Thread(target=lambda: asked.append(server.accept()), daemon=True)
    thread.start()
    port = server.getsockname()[1]
    made(tmp_path / "secret.mp4")
    corpus = tmp_path / "corpus"
    names = [
        "clip:1.mp4",
        "data:,a.mp4",
        "concat:a|b.mp4",
        "file:/b.mp4",
        f"http:/127.0.0.1:{port}/a.mp4",
        "subfile,,start,0,end,9,,:a.mp4",
        "%03d.mp4",
        "pipe:0",
        "http:",
        "-i.mp4",
        "a?b#c.mp4",
        "tcp:x.mp4",
        "crypto:a.mp4",
        "cache:a.mp4",
    ]
    for name in names:
        (corpus / name).parent.mkdir(parents=True, exist_ok=True)
        made(corpus / "plain.mp4")
        if not (corpus / name).is_dir():
            shutil.copy(corpus / "plain.mp4", corpus / name)
    monkeypatch.chdir(corpus)
    for name in names:
        if (corpus / name).is_file():
            assert agreed(name) and agreed(corpus / name)
    for name in [f"file:{tmp_path}/secret.mp4", f"http://127.0.0.1:{port}/x.mp4", "concat:plain.mp4|plain.mp4"]:
        with pytest.raises(MediaError, match="no such file"):
            probe(name)
    time.sleep(0.1)
    assert not asked
    server.close()


def test_check_of_a_table_named_relative_to_the_folder(tmp_path, monkeypatch):
    made(tmp_path / "clip:1.mp4")
    (tmp_path / "m.csv").write_text("clip_id,video_id,media,text,labels\n1,1,clip:1.mp4,,Flood\n")
    monkeypatch.chdir(tmp_path)
    assert inspect_corpus("m.csv").unreadable == 0


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may read everything")
def test_permission_denied_is_a_fault_of_its_file(tmp_path):
    path = made(tmp_path / "a.mp4")
    path.chmod(0)
    with pytest.raises(MediaError, match="can't be read: Permission denied"):
        probe(path)


# --- bounds


def gif(path, side):
    frame = b"\x2c\0\0\0\0" + struct.pack("<HH", side, side) + b"\0\x02\x02\x4c\x01\0"
    path.write_bytes(b"GIF89a" + struct.pack("<HH", side, side) + b"\x80\0\0" + bytes(6) + frame + b"\x3b")
    return path


def huge_jpeg(path, side):
    content = io.BytesIO()
    Image.fromarray(picture(1, (64, 96))).save(content, "jpeg")
    data = bytearray(content.getvalue())
    place = data.index(b"\xff\xc0") + 5
    data[place : place + 4] = struct.pack(">HH", side, side)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=10)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuvj420p"
        packet = av.Packet(bytes(data))
        packet.stream, packet.pts, packet.dts, packet.is_keyframe = stream, 0, 0, True
        container.mux(packet)
    return path


@pytest.mark.parametrize(
    "make",
    [
        lambda p: gif(p / "a.gif", 30_000),
        lambda p: huge_jpeg(p / "a.avi", 30_000),
        lambda p: huge_jpeg(p / "a.mov", 30_000),
    ],
)
def test_declared_sizes_take_no_memory(tmp_path, make):
    path = make(tmp_path)
    began = time.process_time()
    assert not agreed(path) and time.process_time() - began < 5


@pytest.mark.parametrize("rate", [1, 100, 4_000_000_000])
def test_absurd_rates_of_sound(tmp_path, rate):
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setparams((1, 1, 22_050, 0, "NONE", ""))
        file.writeframes(bytes(86_000))
    content = bytearray((tmp_path / "a.wav").read_bytes())
    content[24:28] = struct.pack("<I", rate)
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(MediaError, match="sound must have 1,000 to 768,000 samples per second|can't be decoded|kind"):
        probe(tmp_path / "a.wav")
    assert not agreed(tmp_path / "a.wav")


def test_a_wave_that_claims_a_day(tmp_path):
    path = made(tmp_path / "a.wav", None, "pcm", seconds=2)
    content = bytearray(path.read_bytes())
    place = content.index(b"data")
    for at, value in [(4, 36 + 86_400 * 22_050), (place + 4, 86_400 * 22_050)]:  # as eight bits would take
        content[at : at + 4] = struct.pack("<I", value)
    path.write_bytes(content)
    with pytest.raises(MediaError, match="is cut off: it claims 1,905,120,044 bytes, but has"):
        read_waveform(path)


def test_limits_of_the_settings(tmp_path):
    path = made(tmp_path / "a.mp4", seconds=4)
    for limits, message in [
        (Media(packets=50), "must have at most 50 packets (media.packets), has more"),
        (Media(pixels=1000), "at most 1,000 pixels (media.pixels), have 96 × 64 pixels"),
        (Media(seconds=1e-9), "takes more than 1e-09 s to read (media.seconds)"),
    ]:
        with pytest.raises(MediaError) as error:
            survey(path, limits)
        assert message in str(error.value)
    with pytest.raises(MediaError, match=r"would take 352,800 bytes, allowed are 1,000 \(media.memory\)"):
        read_waveform(path, limits=Media(memory=1000))
    with pytest.raises(MediaError, match=r"would take 36,864 bytes, allowed are 1,000 \(media.memory\)"):
        read_frames(path, 2, limits=Media(memory=1000))


def test_bytes_that_containers_state(tmp_path):
    for container, video, audio in [
        ("mp4", "h264", "aac"),
        ("mov", "mpeg4", "pcm"),
        ("mkv", "h264", "aac"),
        ("avi", "mjpeg", "pcm"),
        ("webm", "vp8", "opus"),
        ("flv", "h264", "mp3"),
    ]:
        path = made(tmp_path / f"a.{container}", video, audio)
        assert stated_bytes(path) == path.stat().st_size, container
    for name in ["a.wav", "a.aiff", "a.au", "a.w64"]:
        path = write_media(tmp_path / name, None, "pcm") if name == "a.wav" else sound_file(tmp_path / name)
        assert abs((stated_bytes(path) or 0) - path.stat().st_size) <= 1, name


def sound_file(path):
    codec = "pcm_s16le" if path.suffix == ".w64" else "pcm_s16be"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=22_050, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 22_050), np.int16), format="s16", layout="mono")
        frame.sample_rate, frame.pts = 22_050, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
