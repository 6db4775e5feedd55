# The gateway and what it is linked with, nothing else: `make docker` collects that beside this file.
# There is no compiler in it and nothing to pull, so the image holds the very program that the
# package has.
FROM scratch
COPY rootfs/viworks-gateway/ /
COPY --chown=64000:64000 rootfs/viworks-gateway.data/ /var/lib/viworks-gateway/
USER 64000:64000
VOLUME /var/lib/viworks-gateway
ENTRYPOINT ["/usr/bin/viworks-gateway"]
CMD ["run"]
