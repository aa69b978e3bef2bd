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
    "The family reports that {she} has been sleeping poorly and skipping meals since last ___.",
    "On arrival {she} was alert, answered questions and asked for something to drink.",
    "Initial vitals were T 98.{n}, HR 8{n}, BP 13{n}/8{n}, RR 18, O2 sat 9{n}% on room air.",
    "An EKG showed sinus rhythm at 7{n} beats a minute without ischemic changes.",
    "{She} had been seen by the primary care physician {n} days earlier and sent home.",
    "The on-call team was paged, saw {her} in the ED and advised admission for observation.",
    "Upon arrival to the floor {she} felt somewhat better and had no new complaints.",
)
COURSE_FILLERS = (
    "Improved over the following days.",
    "Home medicines were continued.",
    "Labs were trended and came back to baseline.",
    "Physical therapy saw {her} and cleared {her} for home.",
    "Pain was well controlled with tablets.",
    "{She} was tolerating a regular diet by day {n}.",
    "Blood cultures were drawn on arrival and showed no growth to date at the time of discharge.",
    "{She} was started on intravenous antibiotics, later narrowed, for a course of {n} days.",
    "An ultrasound was obtained on hospital day {n} and did not change the management.",
    "Family meeting was held with the attending, the nurse and the case manager on day {n}.",
    "Fluids were given at 7{n} cc an hour until oral intake was adequate.",
    "Overnight there were no events on telemetry, and the monitor was taken off.",
    "Electrolytes were checked twice a day and repleted as needed.",
    "The wound team looked at the skin and left recommendations in the chart.",
    "{She} received heparin subcutaneously for prophylaxis throughout the stay.",
    "Nutrition was consulted and supplements were offered with meals.",
)
CLOSING = (
    "#FEN: regular diet, fluids as needed, electrolytes repleted",
    "#PROPHYLAXIS: heparin sc, bowel regimen",
    "#ACCESS: peripheral IV",
    "#CODE STATUS: full, confirmed on admission",
    "#CONTACT: ___ (spouse), phone ___",
    "#DISPO: to home with services, after clearance by physical therapy",
)
SOCIAL = (
    "Lives with spouse. Two cups of coffee a day.",
    "Retired. Lives alone, family nearby.",
    "Works in an office. Walks without aids.",
    "Three grown children. Formerly a teacher, now retired. A glass of wine on weekends.",
)
EXAMS = (
    "VS: T 98.{n} HR 7{n} BP 12{n}/7{n} RR 16 O2 sat 9{n}% RA",
    "GENERAL: awake, in no distress, lying flat in bed",
    "HEENT: sclerae anicteric, mucous membranes moist, oropharynx clear",
    "NECK: supple, no jugular venous distension, no nodes",
    "LUNGS: clear on both sides, no wheezes, rales or rhonchi",
    "HEART: regular rate and rhythm, normal S1 and S2, no extra sounds",
    "ABDOMEN: soft, bowel sounds present, not tender, no guarding",
    "EXT: warm, pulses present, no clubbing or cyanosis",
    "SKIN: warm and dry, no rashes",
    "NEURO: moves all four limbs, speech fluent, cranial nerves intact, gait steady",
    "PSYCH: calm, appropriate",
)
RESULTS = (
    "___ 06:1{n}AM BLOOD WBC-{n}.1 RBC-4.{n} Hgb-12.{n} Hct-38.{n} MCV-8{n} Plt Ct-21{n}",
    "___ 06:1{n}AM BLOOD Glucose-10{n} UreaN-1{n} Creat-0.{n} Na-13{n} K-4.{n} Cl-10{n} HCO3-2{n}",
    "___ 06:1{n}AM BLOOD ALT-2{n} AST-2{n} AlkPhos-8{n} TotBili-0.{n}",
    "___ 06:1{n}AM BLOOD Calcium-8.{n} Phos-3.{n} Mg-2.0",
    "___ 06:1{n}AM BLOOD PT-11.{n} PTT-2{n}.1 INR(PT)-1.1",
    "___ 08:1{n}PM URINE Color-Yellow Appear-Clear Sp ___ Blood-NEG Nitrite-NEG Protein-TR",
    "CXR: lungs are well expanded, no change from ___.",
    "EKG: sinus rhythm, rate 7{n}, normal axis and intervals.",
    "CT torso: no acute findings. Unchanged small cysts, likely benign.",
)
MEDICINES = (
    "Acetaminophen 650 mg PO Q6H:PRN pain",
    "Senna 8.6 mg PO BID:PRN constipation",
    "Docusate Sodium 100 mg PO BID",
    "Multivitamins 1 TAB PO DAILY",
    "Omeprazole 20 mg PO DAILY",
    "Vitamin D 1000 UNIT PO DAILY",
    "Aspirin 81 mg PO DAILY",
    "Atorvastatin 40 mg PO QPM",
    "Lisinopril 10 mg PO DAILY",
    "Metoprolol Succinate XL 50 mg PO DAILY",
    "Gabapentin 300 mg PO TID",
    "Levothyroxine Sodium 75 mcg PO DAILY",
    "Ferrous Sulfate 325 mg PO DAILY",
    "TraZODone 50 mg PO QHS:PRN insomnia",
)
ADVICE = (
    "Take your medicines as they are listed on the sheet that the nurse gave you.",
    "Weigh yourself every morning and call your doctor if your weight goes up by three pounds.",
    "Call or come back for fever, chills, chest pain, bleeding, or anything that worries you.",
    "You may shower, but do not soak in a bath for {n} weeks.",
    "Do not drive while you take pain tablets.",
    "Eat as you are used to and drink plenty of water.",
    "Please keep the appointments below and bring this letter with you.",
)
