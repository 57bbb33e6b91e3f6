from setuptools import find_packages, setup

setup(name='mmmamba', version='0.1.0', packages=find_packages(include=['mmmamba', 'mmmamba.*']), python_requires='>=3.9')
