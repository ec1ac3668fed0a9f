"""The traders' and compliance officers' window: Streamlit, reading the API (live) and the marts (history).

`app.py` is what Streamlit runs; `data.py` is the only file that knows where numbers come from; a page is a file in
`screens/` (not `pages/`: Streamlit runs the files of a folder of that name by themselves, past `app.py`). The dashboard never
imports asset code.
"""
