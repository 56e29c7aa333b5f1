"""What a scene may be called, in English and Chinese. Short captions leave things out; they then mean the typical."""

from __future__ import annotations

import numpy as np
from world import Scene, Thing, pick

CHINESE_SHARE = 0.4

EN_SHAPES = {
    "circle": ("circle", "circle", "circle", "disc"),
    "square": ("square",),
    "triangle": ("triangle",),
    "star": ("star",),
    "ring": ("ring",),
    "cross": ("cross", "cross", "plus"),
}
EN_GREY = ("grey", "gray")
EN_CENTRE = ("in the centre", "in the center", "in the middle")
EN_CENTRE_SHORT = ("centre", "center", "middle")
EN_SIZES = {"small": ("small", "small", "little", "tiny"), "large": ("large", "big")}

ZH_SHAPES = {
    "circle": ("圆形", "圆形", "圆"),
    "square": ("正方形", "正方形", "方块"),
    "triangle": ("三角形",),
    "star": ("星星", "五角星"),
    "ring": ("圆环",),
    "cross": ("十字", "十字形"),
}
ZH_COLOURS = {
    "red": ("红色", "红"), "orange": ("橙色", "橙"), "yellow": ("黄色", "黄"), "green": ("绿色", "绿"),
    "blue": ("蓝色", "蓝"), "purple": ("紫色", "紫"), "pink": ("粉色", "粉红色"), "white": ("白色", "白"),
    "black": ("黑色", "黑"), "grey": ("灰色", "灰"), "light blue": ("浅蓝色", "淡蓝色"), "brown": ("棕色", "褐色"),
}  # fmt: skip
ZH_POSITIONS = {
    "centre": ("中央", "中间", "正中"),
    "top left": ("左上角", "左上"),
    "top right": ("右上角", "右上"),
    "bottom left": ("左下角", "左下"),
    "bottom right": ("右下角", "右下"),
    "left": ("左边",), "right": ("右边",), "top": ("上面",), "bottom": ("下面",),
}  # fmt: skip
ZH_SIZES = {"small": ("小", "小小的"), "large": ("大", "大大的")}
ZH_WORDS = ("背景", "上的", "上有", "一个", "位于", "画面", "在", "和", "，", "的", "大", "小", "纯")
EN_WORDS = (
    " a", "a", "A", " an", "an", "An", " the", "the", " on", " in", " and", ",", ".", " background", " of", " left",
    " right", " top", " bottom", " above", " below", "top", "bottom", " corner", " light", "light", " with", " to",
    " at", " beside", " is",
)  # fmt: skip


def words() -> list[str]:
    """Every word the captions use, for the tokenizer: each becomes one token."""
    english = [w for table in (EN_SHAPES, EN_SIZES) for ws in table.values() for w in ws]
    english += [*EN_GREY, *(w.split()[-1] for w in EN_CENTRE)]
    english += ["red", "orange", "yellow", "green", "blue", "purple", "pink", "white", "black", "brown"]
    both = [form for w in dict.fromkeys(english) for form in (w, " " + w)]
    chinese = [w for t in (ZH_SHAPES, ZH_COLOURS, ZH_POSITIONS, ZH_SIZES) for ws in t.values() for w in ws]
    return list(dict.fromkeys([*both, *EN_WORDS, *chinese, *ZH_WORDS, "user", "assistant", "\n"]))


def article(phrase: str) -> str:
    return f"an {phrase}" if phrase[0] in "aeiou" else f"a {phrase}"


def en_colour(rng: np.random.Generator, colour: str) -> str:
    return pick(rng, EN_GREY) if colour == "grey" else colour


def en_thing(rng: np.random.Generator, thing: Thing, say_size: bool) -> str:
    size = pick(rng, EN_SIZES[thing.size]) + " " if say_size else ""
    return f"{size}{thing.colour} {pick(rng, EN_SHAPES[thing.shape])}"


def en_position(rng: np.random.Generator, position: str) -> str:
    if position == "centre":
        return pick(rng, EN_CENTRE)
    return f"in the {position}" + (" corner" if rng.random() < 0.3 else "")


def en_short_position(rng: np.random.Generator, position: str) -> str:
    return pick(rng, EN_CENTRE_SHORT) if position == "centre" else position


def english_single(rng: np.random.Generator, scene: Scene, say_size: bool, say_position: bool) -> str:
    thing = scene.things[0]
    what, ground = en_thing(rng, thing, say_size), en_colour(rng, scene.background) + " background"
    form = rng.choice(4, p=(0.55, 0.2, 0.15, 0.1))
    if form == 0:
        if not say_position:
            return f"{article(what)} on {article(ground)}"
        where = en_position(rng, thing.position)
        options = (f"{article(what)} {where} on {article(ground)}", f"{article(what)} on {article(ground)}, {where}",
                   f"{article(what)} {where}, {ground}")  # fmt: skip
        return pick(rng, options)
    short = en_short_position(rng, thing.position)
    if form == 1:
        return f"{what}, {ground}" + (f", {short}" if say_position else "")
    if form == 2:
        return f"{ground}, {article(what)}" + (f" {en_position(rng, thing.position)}" if say_position else "")
    return f"{article(what)}, {ground}" + (f", {short}" if say_position else "")


def english_pair(rng: np.random.Generator, scene: Scene) -> str:
    first, second = (article(en_thing(rng, t, False)) for t in scene.things)
    ground = en_colour(rng, scene.background) + " background"
    upright = scene.things[0].position == "top"
    form = rng.choice(4, p=(0.5, 0.2, 0.2, 0.1))
    if form == 0:
        return f"{first} and {second} on {article(ground)}"
    if form == 1:
        places = ("at the top", "at the bottom") if upright else ("on the left", "on the right")
        return f"{first} {places[0]} and {second} {places[1]}, {ground}"
    if form == 2:
        return f"{first} {'above' if upright else 'left of'} {second}, {ground}"
    return f"{ground}, {first} and {second}"


def zh_colour(rng: np.random.Generator, colour: str) -> str:
    return ZH_COLOURS[colour][0 if rng.random() < 0.85 else 1]


def zh_thing(rng: np.random.Generator, thing: Thing, say_size: bool) -> str:
    size = pick(rng, ZH_SIZES[thing.size]) if say_size else ""
    return f"{size}{zh_colour(rng, thing.colour)}{pick(rng, ZH_SHAPES[thing.shape])}"


def chinese_single(rng: np.random.Generator, scene: Scene, say_size: bool, say_position: bool) -> str:
    thing = scene.things[0]
    what, ground = zh_thing(rng, thing, say_size), zh_colour(rng, scene.background) + "背景"
    where = pick(rng, ZH_POSITIONS[thing.position]) if say_position else ""
    form = rng.choice(4, p=(0.45, 0.2, 0.2, 0.15))
    if form == 0:
        tail = pick(rng, ("，位于", "，在")) + where if where else ""
        return f"{ground}上的{what}{tail}"
    if form == 1:
        return f"{what}，{ground}" + (f"，{where}" if where else "")
    if form == 2:
        return f"{ground}，{where}一个{what}" if where else f"{ground}上有一个{what}"
    return f"一个{what}，{'在' + where + '，' if where else ''}{ground}"


def chinese_pair(rng: np.random.Generator, scene: Scene) -> str:
    first, second = (zh_thing(rng, t, False) for t in scene.things)
    ground = zh_colour(rng, scene.background) + "背景"
    places = [ZH_POSITIONS[t.position][0] for t in scene.things]
    form = rng.choice(3, p=(0.45, 0.35, 0.2))
    if form == 0:
        return f"{ground}上的{first}和{second}"
    if form == 1:
        return f"{places[0]}{first}，{places[1]}{second}，{ground}"
    return f"{first}和{second}，{ground}"


def sample_caption(rng: np.random.Generator, scene: Scene) -> str:
    """A caption true of the scene. What is typical (centre, large) may go unsaid; the untypical seldom does."""
    chinese = rng.random() < CHINESE_SHARE
    if len(scene.things) == 2:
        return chinese_pair(rng, scene) if chinese else english_pair(rng, scene)
    thing = scene.things[0]
    say_position = rng.random() < (0.4 if thing.position == "centre" else 0.97)
    say_size = rng.random() < (0.4 if thing.size == "large" else 0.97)
    return (chinese_single if chinese else english_single)(rng, scene, say_size, say_position)


def full_caption(rng: np.random.Generator, scene: Scene, chinese: bool) -> str:
    """A caption that says everything, for judging."""
    if len(scene.things) == 2:
        return chinese_pair(rng, scene) if chinese else english_pair(rng, scene)
    return (chinese_single if chinese else english_single)(rng, scene, True, True)
