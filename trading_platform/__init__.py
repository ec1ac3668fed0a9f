"""The domain of the platform. Nothing below this package imports dagster or streamlit.

The code is laid out along one loop: venues -> market data -> features -> models -> signals -> orders -> fills ->
outcomes -> retraining. Each room's docstring says what belongs in it; docs/architecture.md draws the picture.
"""
