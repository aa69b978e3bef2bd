"""What people without training say for official medical words: a short list, our own.

Keys are lower-case words of ICD-10-CM's texts, whole words only: common conditions, organs and
injuries.
"""

import re
from collections.abc import Mapping
from functools import cache

LAY = {
    "abdominal": "belly",
    "abrasion": "scrape",
    "abscess": "pocket of pus",
    "adverse effect": "bad reaction",
    "alopecia": "hair loss",
    "anemia": "low blood count",
    "anomaly": "defect",
    "assault": "attack",
    "benign neoplasm": "harmless growth",
    "calculus": "stone",
    "carcinoma": "cancer",
    "cardiac": "heart",
    "cataract": "clouded lens",
    "cerebral": "brain",
    "cerebral infarction": "stroke",
    "cervical": "neck",
    "cholelithiasis": "gallstones",
    "collision": "crash",
    "congenital": "inborn",
    "contact with": "having touched",
    "contusion": "bruise",
    "corrosion": "chemical burn",
    "cutaneous": "skin",
    "delivery": "birth",
    "dependence": "addiction",
    "dermatitis": "skin rash",
    "dislocation": "joint out of place",
    "displaced fracture": "break out of line",
    "dysphagia": "trouble swallowing",
    "dyspnea": "shortness of breath",
    "edema": "swelling",
    "embolism": "clot",
    "encephalitis": "brain inflammation",
    "epistaxis": "nosebleed",
    "femur": "thigh bone",
    "fetal": "baby's",
    "fibula": "calf bone",
    "foreign body": "stuck object",
    "fracture": "broken bone",
    "gastric": "stomach",
    "hematuria": "blood in the urine",
    "hemorrhage": "bleeding",
    "hepatic": "liver",
    "hepatitis": "liver inflammation",
    "humerus": "upper arm bone",
    "hyperlipidemia": "high cholesterol",
    "hypertension": "high blood pressure",
    "hypertrophy": "enlargement",
    "hypoglycemia": "low sugar",
    "hypotension": "low blood pressure",
    "inhalation": "breathing in",
    "laceration": "cut",
    "lesion": "sore spot",
    "loss of consciousness": "blackout",
    "malignant neoplasm": "cancer",
    "metatarsal": "foot bone",
    "motor vehicle": "car",
    "motorcycle": "motorbike",
    "myocardial infarction": "heart attack",
    "neoplasm": "growth",
    "nephritis": "kidney inflammation",
    "newborn": "baby",
    "nicotine": "tobacco",
    "nontraffic": "off-road",
    "obstruction": "blockage",
    "occupant": "person inside",
    "ocular": "eye",
    "osteoarthritis": "worn joint",
    "otitis media": "middle ear infection",
    "paralysis": "inability to move",
    "pedal cycle": "bicycle",
    "pedestrian": "person on foot",
    "perforation": "hole",
    "phalanx": "finger bone",
    "pneumonia": "lung infection",
    "poisoning": "overdose",
    "postpartum": "after the birth",
    "pruritus": "itching",
    "puerperium": "weeks after birth",
    "pulmonary": "lung",
    "puncture wound": "stab wound",
    "radius": "forearm bone",
    "rectum": "back passage",
    "renal": "kidney",
    "respiratory": "breathing",
    "retinal": "back-of-the-eye",
    "rupture": "tear",
    "screening": "check-up",
    "seizure": "fit",
    "self-harm": "hurting oneself",
    "sepsis": "blood infection",
    "sprain": "twisted joint",
    "stenosis": "narrowing",
    "superficial": "shallow",
    "thrombosis": "blood clot",
    "tibia": "shin bone",
    "tinnitus": "ringing in the ears",
    "toxic effect": "poisoning",
    "traumatic amputation": "loss",
    "tuberculosis": "TB",
    "ulna": "elbow bone",
    "urinary": "bladder",
    "varicose veins": "swollen veins",
    "vertebra": "back bone",
    "vertigo": "dizzy spells",
}


def in_lay_words(text: str) -> str:
    """A text with all words of the list replaced."""
    return _lay().sub(lambda word: LAY[word[0].lower()], text)


def pattern(by: Mapping[str, str]) -> re.Pattern[str]:
    """Whole words that are keys, the longest first."""
    longest = sorted(by, key=len, reverse=True)
    return re.compile(rf"(?<![\w-])(?:{'|'.join(map(re.escape, longest))})(?![\w-])", re.IGNORECASE)


@cache
def _lay() -> re.Pattern[str]:
    return pattern(LAY)
