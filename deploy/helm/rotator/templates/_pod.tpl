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

{{/* A duration of the configuration, in seconds. */}}
{{- define "rotator.seconds" -}}
{{- $seconds := 0.0 -}}
{{- if kindIs "string" . -}}
{{- $units := dict "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0 "d" 86400.0 "w" 604800.0 -}}
{{- range regexFindAll "[0-9.]+(ms|s|m|h|d|w)" . -1 -}}
{{- $unit := regexFind "[a-z]+" . -}}
{{- $seconds = addf $seconds (mulf (trimSuffix $unit . | float64) (get $units $unit)) -}}
{{- end -}}
{{- else -}}
{{- $seconds = float64 . -}}
{{- end -}}
{{- $seconds -}}
{{- end -}}

{{/* How long a stop may take, as the configuration has it: drain_timeout, and then half a minute for the last saves. */}}
{{- define "rotator.grace" -}}
{{- $config := include "rotator.config" . | fromJson -}}
{{- $longest := 0.0 -}}
{{- range $config.credentials -}}
{{- $each := .total_timeout | default ($config.defaults | default dict).total_timeout | default 90 -}}
{{- $longest = include "rotator.seconds" $each | float64 | maxf $longest -}}
{{- end -}}
{{- $drain := ($config.daemon | default dict).drain_timeout | default (addf $longest 15) -}}
{{- $needed := include "rotator.seconds" $drain | float64 | addf 30 | ceil | int -}}
{{- $grace := .Values.terminationGracePeriodSeconds | default $needed | int -}}
{{- if lt $grace $needed -}}
{{- printf "terminationGracePeriodSeconds: %d cuts a stop short: drain_timeout and the last saves may take %d; leave it out, or set %d or more" $grace $needed $needed | fail -}}
{{- end -}}
{{- $grace -}}
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
