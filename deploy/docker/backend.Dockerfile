# The backend and what it is linked with, nothing else: `make docker` collects that beside this file.
# There is no compiler in it and nothing to pull, so the image holds the very program that the
# package has.
FROM scratch
COPY rootfs/viworks-backend/ /
COPY --chown=64000:64000 rootfs/viworks-backend.data/ /var/lib/viworks-backend/
USER 64000:64000
VOLUME /var/lib/viworks-backend
EXPOSE 8080 8081
ENV VIW_BACKEND_API_LISTEN=0.0.0.0:8080
ENTRYPOINT ["/usr/bin/viworks-backend"]
CMD ["run"]
