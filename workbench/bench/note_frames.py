"""Sentences of made-up notes, with places for what is told; our own writing.

`{d}` is a diagnosis, `{x}` a condition that the patient does not have. `{She}`, `{she}`, `{her}`
are of the patient, `{n}` is a small number. A diagnosis is a `condition`, a `cause` (of an injury:
V to Y) or a `status` (Z), which take sentences of their own.
"""

TOLD: dict[str, dict[str, tuple[str, ...]]] = {
    "condition": {
        "hpi": (
            "{She} was sent in by the family doctor because of {d}.",
            "{n} days before admission {she} was seen elsewhere, where {d} was suspected.",
            "Work-up in the emergency department pointed to {d}.",
            "The picture is that of {d}, which had been building up for {n} weeks.",
            "Since the last visit {she} has also had trouble from {d}.",
            "Imaging from the outside hospital was read as {d}.",
            "{d} brought {her} to the emergency department, by ambulance.",
            "{She} has known about {d} for {n} months, and came in when it got worse.",
        ),
        "pmh": ("{d}", "{d} (followed in clinic)", "{d}, since ___"),
        "head": ("{d}", "{d}:", "Acute issue: {d}", "{d} -- active"),
        "course": (
            "Findings were in keeping with {d}, and treatment was begun on day {n}.",
            "The consulting team agreed that this was {d}.",
            "For {d} {she} got supportive care, with a good response.",
            "Repeat testing confirmed {d}; therapy was adjusted twice.",
            "It was felt that {d} explained most of the complaints.",
            "We kept {her} on telemetry while {d} was being treated.",
            "{d} remained the main problem for the first {n} days.",
            "Records from ___ were obtained and also describe {d}.",
        ),
        "dx": ("{d}", "{d}", "{d} (see course)"),
        "plan": (
            "Clinic in {n} weeks for {d}.",
            "{d}: continue present treatment, recheck in {n} weeks.",
            "Please follow up {d} with repeat labs.",
            "Outpatient team to decide on further treatment of {d}.",
        ),
        "letter": (
            "You came to the hospital because of {d}.",
            "While you were here we treated you for {d}.",
            "We think that {d} made you feel unwell.",
            "Please call us if you notice signs of {d} again.",
        ),
        "cc": ("{d}",),
    },
    "cause": {
        "hpi": (
            "As to how it happened, witnesses describe the following: {d}.",
            "Mechanism as reported by the crew: {d}.",
            "The history behind it, in {her} own account: {d}.",
            "{She} gives as the circumstances: {d}.",
        ),
        "course": (
            "Social work went over the circumstances ({d}) with {her}.",
            "The event itself ({d}) was documented for the insurer.",
            "Trauma form completed; recorded there: {d}.",
        ),
        "dx": ("{d}", "Circumstances: {d}"),
        "plan": (
            "Paperwork about the event ({d}) was handed over.",
            "Report to the authorities was filed: {d}.",
        ),
        "letter": ("You told us how this came about: {d}.",),
    },
    "status": {
        "hpi": (
            "Of note for this stay: {d}.",
            "Also on record from earlier visits: {d}.",
            "The booking form says: {d}.",
            "{She} reminds us of this: {d}.",
        ),
        "pmh": ("{d}", "on file: {d}"),
        "course": (
            "Taken into account throughout: {d}.",
            "The case manager noted the following and acted on it: {d}.",
        ),
        "dx": ("{d}", "Other factors: {d}"),
        "plan": ("For the next visit, keep in mind: {d}.", "Care plan updated ({d})."),
    },
}
"""Kind of diagnosis → section → sentences or lines."""

NEGATED = (
    "{She} denied {x}.",
    "There was no evidence of {x}.",
    "{x} was considered and ruled out.",
    "No signs of {x} on examination.",
    "Negative for {x}.",
    "Testing did not support {x}.",
    "At no time was there {x}.",
)
FAMILY = (
    "Mother had {x}.",
    "Father died of {x} in his ___.",
    "A brother has {x}.",
    "Grandmother with {x}.",
    "Maternal aunt: {x}.",
)
HPI_OPENINGS = (
    "Patient is a ___ year old {woman} who presents to the emergency department.",
    "___ y/o {woman}, transferred from another hospital.",
    "This is a ___-year-old {woman} living at home with family.",
    "A ___ year old {woman} is admitted from clinic.",
)
HPI_FILLERS = (
    "Appetite has been fair, weight stable.",
    "{She} took over-the-counter tablets with little effect.",
    "In the ED vital signs were stable and labs were drawn.",
    "{She} was given fluids and sent to the floor.",
    "No recent travel, no sick contacts.",
    "Review of systems is otherwise as above.",
)
COURSE_FILLERS = (
    "Improved over the following days.",
    "Home medicines were continued.",
    "Labs were trended and came back to baseline.",
    "Physical therapy saw {her} and cleared {her} for home.",
    "Pain was well controlled with tablets.",
    "{She} was tolerating a regular diet by day {n}.",
)
SOCIAL = (
    "Lives with spouse. Two cups of coffee a day.",
    "Retired. Lives alone, family nearby.",
    "Works in an office. Walks without aids.",
)
EXAMS = (
    "VS: T 98.{n} HR 7{n} BP 12{n}/7{n} RR 16 O2 sat 9{n}% RA",
    "GENERAL: awake, in no distress",
    "HEENT: sclerae anicteric, mucous membranes moist",
    "LUNGS: clear on both sides",
    "HEART: regular, no extra sounds",
    "ABDOMEN: soft, bowel sounds present",
    "EXT: warm, pulses present",
    "NEURO: moves all four limbs, speech fluent",
)
RESULTS = (
    "___ WBC-{n}.1 Hgb-12.{n} Hct-38.{n} Plt Ct-21{n}",
    "___ Glucose-10{n} UreaN-1{n} Creat-0.{n} Na-13{n} K-4.{n}",
    "___ ALT-2{n} AST-2{n} AlkPhos-8{n} TotBili-0.{n}",
    "CXR: lungs are well expanded, no change from ___.",
)
MEDICINES = (
    "Acetaminophen 650 mg PO Q6H:PRN pain",
    "Senna 8.6 mg PO BID:PRN",
    "Docusate Sodium 100 mg PO BID",
    "Multivitamins 1 TAB PO DAILY",
    "Omeprazole 20 mg PO DAILY",
    "Vitamin D 1000 UNIT PO DAILY",
)
