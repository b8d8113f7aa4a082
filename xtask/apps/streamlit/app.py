import streamlit as st

st.set_page_config(page_title="A sample")
st.title("Streamlit")
