# syntax=docker/dockerfile:1
FROM python:3.12.11-slim-bookworm AS build
WORKDIR /src
RUN python -m venv /opt/k2
COPY requirements.lock ./
# exactly what was locked and tested, by hash; the pure build needs nothing else
RUN /opt/k2/bin/pip install --no-cache-dir --require-hashes -r requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY catalog ./catalog
COPY flight_server ./flight_server
RUN /opt/k2/bin/pip install --no-cache-dir --no-deps .

FROM python:3.12.11-slim-bookworm
RUN useradd --system --uid 10001 --create-home --home-dir /var/lib/k2 k2
COPY --from=build /opt/k2 /opt/k2
ENV PATH=/opt/k2/bin:$PATH PYTHONUNBUFFERED=1
USER k2
WORKDIR /var/lib/k2
VOLUME /var/lib/k2
EXPOSE 32010
STOPSIGNAL SIGTERM
ENTRYPOINT ["k2"]
CMD ["serve"]
