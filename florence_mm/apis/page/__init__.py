"""The page of ``florence-mm demo``: a tab for each task, in a browser, without requests to other hosts.

``tasks`` says what each tab asks and shows, ``models`` which models serve it, ``examples`` writes pictures to try,
``layout`` builds the page with Gradio.
"""
