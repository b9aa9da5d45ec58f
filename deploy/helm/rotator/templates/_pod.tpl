{{/* What all pods of the release have in common; for sidecars in the pods of others see _sidecar.tpl. */}}
{{- define "rotator.pod" -}}
serviceAccountName: {{ include "rotator.name" . }}
automountServiceAccountToken: true
{{- with .Values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "rotator.program" -}}
image: {{ include "rotator.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
resources: {{- toYaml .Values.resources | nindent 2 }}
{{- end -}}

{{- define "rotator.container" -}}
{{ include "rotator.program" . }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
volumeMounts:
  - {name: config, mountPath: /etc/rotator, readOnly: true}
  - {name: run, mountPath: /run/rotator}
{{- end -}}

{{- define "rotator.volumes" -}}
- name: config
  projected: # in one directory, whole: a new client secret is noticed without a restart
    defaultMode: 0440
    sources:
      - configMap: {name: {{ include "rotator.name" . }}-config}
      {{- range .Values.secrets }}
      - secret: {name: {{ . }}}
      {{- end }}
- name: run # the control socket
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
{{- end -}}
