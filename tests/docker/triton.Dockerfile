# The server of the wheel nvidia-pytriton, laid out like NVIDIA's image.
FROM python:3.11.11-slim-bookworm
COPY constraints-triton.txt /
RUN pip install --no-cache-dir -c constraints-triton.txt numpy openvino pydantic \
  && pip install --no-cache-dir --target /wheel -c constraints-triton.txt --no-deps nvidia-pytriton \
  && cd /wheel/pytriton/tritonserver \
  && mkdir -p /opt/tritonserver/backends/python /var/cache/triton \
  && mv bin /opt/tritonserver/ \
  && mv backends/python/*.so backends/python/*.py python_backend_stubs/3.11/triton_python_backend_stub /opt/tritonserver/backends/python/ \
  && mv /wheel/nvidia_pytriton.libs /opt/tritonserver/lib \
  && rm -r /wheel
# Its Python backend computes with the code of the gateway.
ARG PACKAGES=/usr/local/lib/python3.11/dist-packages
COPY --from=patchcore-gateway:0.1.0 /opt/gateway/lib/python3.11/site-packages/gateway $PACKAGES/gateway
COPY --from=patchcore-gateway:0.1.0 /opt/gateway/lib/python3.11/site-packages/patchcore_gateway-0.1.0.dist-info $PACKAGES/patchcore_gateway-0.1.0.dist-info
ENV PATH=/opt/tritonserver/bin:$PATH LD_LIBRARY_PATH=/opt/tritonserver/lib
USER 10001
