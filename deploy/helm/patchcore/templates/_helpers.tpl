{{- define "patchcore.name" -}}
{{- default .Release.Name .Values.fullnameOverride | trunc 48 | trimSuffix "-" -}}
{{- end -}}

{{/* Labels that select pods of a component: (list . "gateway") */}}
{{- define "patchcore.selector" -}}
app.kubernetes.io/name: patchcore
app.kubernetes.io/instance: {{ (index . 0).Release.Name | quote }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{- define "patchcore.labels" -}}
{{- $root := index . 0 -}}
{{ include "patchcore.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
{{- end -}}

{{- define "patchcore.metadata" -}}
{{- $root := index . 0 -}}
name: {{ include "patchcore.name" $root }}-{{ index . 1 }}
namespace: {{ $root.Release.Namespace }}
labels:
  {{- include "patchcore.labels" . | nindent 2 }}
{{- end -}}

{{/* Name and release of an image: (list . .Values.gateway.image) */}}
{{- define "patchcore.image" -}}
{{- $image := index . 1 -}}
{{ $image.repository }}{{ with $image.digest }}@{{ . }}{{ else }}:{{ $image.tag | default (index $ 0).Chart.AppVersion }}{{ end }}
{{- end -}}

{{/* The claim of the models folder, and that of the model repository. */}}
{{- define "patchcore.modelsClaim" -}}
{{ .Values.models.existingClaim | default (printf "%s-models" (include "patchcore.name" .)) }}
{{- end -}}
{{- define "patchcore.repositoryClaim" -}}
{{ .Values.modelRepository.existingClaim | default (printf "%s-model-repository" (include "patchcore.name" .)) }}
{{- end -}}

{{/* What all pods have in common. User 10001 is that of the images. */}}
{{- define "patchcore.pod" -}}
serviceAccountName: {{ include "patchcore.name" . }}
automountServiceAccountToken: false
# A service named "gateway" would set GATEWAY_PORT.
enableServiceLinks: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  # Not at each start: a models folder has many files.
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
{{- end -}}

{{- define "patchcore.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}

{{- define "patchcore.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* A claim that the chart makes: (list . .Values.models "models"). It stays when the release is removed. */}}
{{- define "patchcore.claim" -}}
{{- $values := index . 1 -}}
apiVersion: v1
kind: PersistentVolumeClaim
metadata:
  {{- include "patchcore.metadata" (list (index . 0) (index . 2)) | nindent 2 }}
  annotations:
    helm.sh/resource-policy: keep
spec:
  accessModes: [ReadWriteMany]
  {{- with $values.storageClassName }}
  storageClassName: {{ . }}
  {{- end }}
  resources:
    requests:
      storage: {{ $values.size }}
{{- end -}}
