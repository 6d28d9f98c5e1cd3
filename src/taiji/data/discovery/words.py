"""Recognise the meanings of column, file and value names in many languages. A name is evidence, never proof."""

from __future__ import annotations

import re
import unicodedata

MEANINGS: dict[str, str] = {
    "user": "user uid cookie profile customer cust client clientele household hhid buyer member visitor account shopper person reader viewer reviewer subscriber kunde kunden kundin nutzer benutzer haushalt mitglied käufer besucher utilisateur klient klant gebruiker användare użytkownik пользователь клиент покупатель müşteri acheteur usuario cliente comprador utente 用户 会员 顾客 客户 买家 使用者 ユーザー 顧客 사용자 고객",
    "item": "item product prod sku asin article artikel produkt ware waren good goods movie film book buch isbn video song track offer listing produit towar товар артикул ürün producto articulo artículo prodotto 商品 产品 物品 货品 货号 电影 图书 視頻 视频 ご商品 アイテム 상품",
    "title": "title name titel bezeichnung produktname artikelname label caption nom titre nazwa název naam название наименование libelle libellé nombre titulo título nome titolo 名称 标题 品名 商品名 书名 片名 名字 タイトル 이름",
    "category": "category cat categ kategorie rubrik warengruppe sortiment department dept abteilung aisle shelf genre genres section group class classe categorie kategoria kategori категория catégorie rayon categoria categoría 类目 分类 类别 品类 类型 一级 二级 三级 部门 カテゴリ 카테고리",
    "price": "price prc preis einzelpreis verkaufspreis umsatz betrag amount cost cena prijs цена fiyat revenue sales value prix precio prezzo importe 价格 单价 金额 售价 価格 가격",
    "time": "time timestamp ts date datetime day when created occurred at datum zeit zeitpunkt zeitstempel uhrzeit tag bestelldatum kaufdatum fecha czas tijd дата время tarih hora heure jour momento 时间 日期 时间戳 下单时间 行为时间 日時 날짜 시간",
    "click": "click clicked clicks ctr viewed opened klick geklickt angeklickt clic cliqué clicado 点击 是否点击 クリック 클릭",
    "conversion": "conversion converted convert cvr purchase purchased bought buy order ordered paid kauf gekauft bestellt bestellung gekauft achat acheté compra comprado 购买 成交 转化 下单 支付 是否购买 購入 구매",
    "exposed": "exposed exposure impression impressions shown displayed angezeigt eingeblendet sichtbar 曝光 展示 是否曝光",
    "rating": "rating ratings stars star score overall grade bewertung sterne note puntuacion valoración 评分 打分 星级 評価 평점",
    "action": "action event eventtype behavior behaviour activity interaction verb aktion aktivität ereignis verhalten vorgang accion acción 行为 动作 事件 行为类型 操作",
    "quantity": "quantity qty count number amount menge anzahl stück quantité cantidad 数量 件数",
    "id": "id ids key code nr no num number nummer kennung identifier index 编号 号 编码 代码 番号",
    "events": "event events log logs click clicks interaction interactions transaction transactions order orders orderlines sales purchases ratings reviews views behavior behaviour impressions history bestellung bestellungen verkäufe käufe kauf umsätze protokoll ereignisse ventes achats pedidos ventas 行为 日志 订单 交易 记录 曝光 点击 明细",
    "items": "item items product products catalog catalogue sku skus article articles artikel artikelstamm produkte sortiment katalog movies films books bücher goods produits productos 商品 产品 物品 图书 电影",
    "users": "user users customer customers household households member members account accounts profile profiles demographics kunden kundenstamm nutzer haushalte clients clientes usuarios 用户 会员 客户 顾客 画像",
}
ACTIONS: dict[str, str] = {
    "shown": "impression impressions imp show shown exposure exposed display displayed delivered seen ignore ignored skip skipped pass passed none no nothing no_action anzeige angezeigt eingeblendet ignoriert übersprungen affiché mostrado 曝光 展示 跳过 忽略",
    "view": "view views pageview page_view pv browse detail visit ansicht angesehen ansehen aufruf vue vista vistas visto visita visualización visualizado visualizzazione visualização 浏览 查看",
    "click": "click clicks clicked open opened select klick geklickt clic 点击",
    "middle": "cart add_to_cart addtocart add_cart atc fav favorite favourite wishlist like collect warenkorb merkliste gemerkt panier 加购 加入购物车 收藏 喜欢",
    "buy": "buy bought purchase purchased order ordered transaction conversion checkout pay paid sale kauf gekauft kaufen bestellung bestellt achat compra 购买 下单 支付 成交 付款",
    "against": "dislike disliked hide hidden hid not_interested uninterested block blocked mute muted report reported downvote downvoted thumbs_down negative reject rejected dismiss dismissed ausgeblendet abgelehnt gefällt_nicht 不喜欢 踩 不感兴趣 屏蔽 举报",
    "back": "remove_from_cart return returned refund cancel cancelled canceled storno retoure rückgabe 退货 退款 取消 unlike unfollow unfavorite unsave uncollect",
}
LABELS = {
    "click": MEANINGS["click"],
    "conversion": MEANINGS["conversion"] + " orders purchases conversions bookings booked",
    "label": "label target outcome response success successful positive engaged engagement y ziel zielgröße 标签",
    "action": MEANINGS["action"] + " status state zustand statut estado stato stav 状态 ステータス 상태",
}
"""Words in the names of columns that describe behaviour."""
UNWANTED = "bot bots robot crawler spam fraud fraudulent test tests testing dummy internal deleted invalid void cancelled canceled storniert gelöscht testbestellung 测试 机器人 作弊"
"""Words in the names of columns that mark bot, test or cancelled rows."""
DECORATING = (
    "is was has have had did does be been ist wurde war hat est a 是否 已 flag flg bool boolean ind indicator label target yn y n binary value val count cnt num number "
    "type typ kind name code art 类型 event user item the 次数 标记 数"
)
DECORATIONS = frozenset(DECORATING.split())
"""Words that do not change the meaning of a name."""
NEGATING = "not no non never without nicht kein keine ohne sans pas sin ikke inte geen niet didnt didn dont isnt wasnt 未 没 没有 不 無 非"
NEGATIONS = frozenset(NEGATING.split())
PREFIXES = ("not", "non", "no", "un", "nicht", "未", "没有", "没", "不", "無", "非")
NUMBER_OF = ("no", "of"), ("nr", "of")
"""First two words of names in which ``no`` or ``nr`` abbreviates "number" and is not a negation (``no_of_clicks``)."""


def parts(name: str) -> list[str]:
    """Split a name into lower-case words: ``KundenNr`` into ``kunden, nr``; ``user_id`` into ``user, id``."""
    text = unicodedata.normalize("NFKC", name)
    text = re.sub(r"(?<=[a-zß-ÿ0-9])(?=[A-ZÀ-Þ])", " ", text)
    return [word for word in re.split(r"[\W_]+", text.casefold()) if word]


def says(name: str, vocabulary: str) -> bool:
    """Return True if a name contains a word of ``vocabulary``, which is a string of words separated by spaces."""
    words = parts(name)
    joined = "".join(words)
    for word in vocabulary.split():
        plain = word.replace("_", "")
        if plain in words or plain == joined:
            return True
        if not plain.isascii() and plain in joined:  # Chinese has no spaces between words
            return True
        if len(plain) >= 4 and any(
            part.startswith(plain) or (len(plain) >= 5 and part.endswith(plain)) for part in words
        ):
            return True  # compounds: kundennummer, produktbezeichnung
    return False


def meanings(name: str) -> frozenset[str]:
    """Return the :data:`MEANINGS` that the name of a column or a file suggests."""
    return frozenset(meaning for meaning, vocabulary in MEANINGS.items() if says(name, vocabulary))


def negated(name: str, vocabulary: str) -> bool:
    """Return True if a name negates a word of the vocabulary: ``not_clicked``, ``unclicked``, ``no_purchase``,
    ``未点击``."""
    words = parts(name)
    if tuple(words[:2]) in NUMBER_OF:
        return False
    for place, word in enumerate(words):
        following = [after for after in words[place + 1 :] if after not in DECORATIONS and after != "t"]
        if word in NEGATIONS and following and says(following[0], vocabulary):
            return True
        for prefix in PREFIXES:
            rest = word.removeprefix(prefix)
            if rest not in ("", word) and rest in vocabulary.split():
                return True
    return False


def label_named(name: str) -> str | None:
    """Return the first key of :data:`LABELS` whose vocabulary covers all words of a name; None if there is none.

    Negations and :data:`DECORATIONS` are ignored: ``is_clicked`` gives ``click``, and ``click_time`` gives None.
    """
    words = [word for word in parts(name) if word not in NEGATIONS]
    for meaning, vocabulary in LABELS.items():
        plain = [word for word in words if word in vocabulary.split() or word not in DECORATIONS]
        if plain and all(_in_vocabulary(word, vocabulary) for word in plain):
            return meaning
    return None


def _in_vocabulary(word: str, vocabulary: str) -> bool:
    """Return True if a word is in the vocabulary, with or without a negating prefix.

    Non-ASCII words of :data:`DECORATIONS` inside a word are ignored, because Chinese has no spaces.
    """
    known = vocabulary.split()
    if not word.isascii():
        for decoration in sorted((part for part in DECORATIONS if not part.isascii()), key=len, reverse=True):
            word = word if word in known else word.replace(decoration, "")
    return word in known or any(word.removeprefix(prefix) in known for prefix in PREFIXES)


def action(value: str) -> str | None:
    """Return the key of :data:`ACTIONS` that the name of a logged action suggests; None if it suggests none or several.

    A negated action (``not clicked``) means ``shown``.
    """
    folded = "_".join(parts(value))
    exact = [kind for kind, vocabulary in ACTIONS.items() if folded in vocabulary.split()]
    if not exact and any(negated(value, ACTIONS[kind]) for kind in ("view", "click", "middle", "buy")):
        return "shown"
    found = exact or [kind for kind, vocabulary in ACTIONS.items() if says(value, vocabulary)]
    return found[0] if len(found) == 1 else None
