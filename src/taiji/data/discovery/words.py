"""Meanings of column, file and value names, in the languages exports are written in. Names are evidence, never proof."""

from __future__ import annotations

import re
import unicodedata

MEANINGS: dict[str, str] = {
    "user": "user uid customer cust client clientele household hhid buyer member visitor account shopper person reader viewer reviewer subscriber kunde kunden kundin nutzer benutzer haushalt mitglied käufer besucher utilisateur acheteur usuario cliente comprador utente 用户 会员 顾客 客户 买家 使用者 ユーザー 顧客 사용자 고객",
    "item": "item product prod sku asin article artikel produkt ware waren good goods movie film book buch isbn video song track offer listing produit producto articulo artículo prodotto 商品 产品 物品 货品 货号 电影 图书 視頻 视频 ご商品 アイテム 상품",
    "title": "title name titel bezeichnung produktname artikelname label caption nom titre libelle libellé nombre titulo título nome titolo 名称 标题 品名 商品名 书名 片名 名字 タイトル 이름",
    "category": "category cat categ kategorie rubrik warengruppe sortiment department abteilung aisle shelf genre genres section group class classe categorie catégorie rayon categoria categoría 类目 分类 类别 品类 类型 一级 二级 三级 部门 カテゴリ 카테고리",
    "price": "price prc preis einzelpreis verkaufspreis umsatz betrag amount cost revenue sales value prix precio prezzo importe 价格 单价 金额 售价 価格 가격",
    "time": "time timestamp ts date datetime day when created occurred at datum zeit zeitpunkt zeitstempel uhrzeit tag bestelldatum kaufdatum fecha hora heure jour momento 时间 日期 时间戳 下单时间 行为时间 日時 날짜 시간",
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
    "shown": "impression impressions show shown exposure exposed display displayed ignore ignored skip skipped none no_click nothing anzeige angezeigt eingeblendet ignoriert 曝光 展示 未点击",
    "view": "view views pageview page_view pv browse detail visit ansicht angesehen ansehen aufruf vue 浏览 查看",
    "click": "click clicks clicked open opened select klick geklickt clic 点击",
    "middle": "cart add_to_cart addtocart add_cart atc fav favorite favourite wishlist like collect warenkorb merkliste gemerkt panier 加购 加入购物车 收藏 喜欢",
    "buy": "buy bought purchase purchased order ordered transaction conversion checkout pay paid sale kauf gekauft kaufen bestellung bestellt achat compra 购买 下单 支付 成交 付款",
    "back": "remove_from_cart return returned refund cancel cancelled canceled storno retoure rückgabe 退货 退款 取消",
}


def parts(name: str) -> list[str]:
    """A name in lower-case words: ``KundenNr`` gives ``kunden, nr``; ``user_id`` gives ``user, id``."""
    text = unicodedata.normalize("NFKC", name)
    text = re.sub(r"(?<=[a-zß-ÿ0-9])(?=[A-ZÀ-Þ])", " ", text)
    return [word for word in re.split(r"[\W_]+", text.casefold()) if word]


def says(name: str, vocabulary: str) -> bool:
    """Tell whether a name holds a word of the vocabulary (words separated by spaces)."""
    words = parts(name)
    joined = "".join(words)
    for word in vocabulary.split():
        plain = word.replace("_", "")
        if plain in words or plain == joined:
            return True
        if not plain.isascii() and plain in joined:  # no spaces between Chinese words
            return True
        if len(plain) >= 4 and any(
            part.startswith(plain) or (len(plain) >= 5 and part.endswith(plain)) for part in words
        ):
            return True  # compounds: kundennummer, produktbezeichnung
    return False


def meanings(name: str) -> frozenset[str]:
    """Return those of :data:`MEANINGS` that a column's or file's name suggests."""
    return frozenset(meaning for meaning, vocabulary in MEANINGS.items() if says(name, vocabulary))


def action(value: str) -> str | None:
    """Return the one of :data:`ACTIONS` that a logged action's name suggests; None when it says nothing, or several things."""
    folded = "_".join(parts(value))
    exact = [kind for kind, vocabulary in ACTIONS.items() if folded in vocabulary.split()]
    found = exact or [kind for kind, vocabulary in ACTIONS.items() if says(value, vocabulary)]
    return found[0] if len(found) == 1 else None
