"""Why a file is not what was trained: causes undone one by one, findings, the article's claims, the doctor's diagnosis."""
