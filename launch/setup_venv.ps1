<#
.SYNOPSIS
Makes .venv in the repository root and installs the package into it, pinned by constraints.txt.

.DESCRIPTION
As launch/setup_venv.sh, for PowerShell on Windows (and anywhere else where it runs):

    powershell -ExecutionPolicy Bypass -File launch\setup_venv.ps1
    .venv\Scripts\Activate.ps1

Where no C++ compiler is, -Extras native installs one, without which training is slower.

.PARAMETER Extras
Extras to install, separated by commas: -Extras label, -Extras test,label. None by default, or
those of the environment variable EXTRAS.

.PARAMETER Python
The interpreter to use; by default the first Python 3.11 to 3.13 that is found.
#>
param(
    [string[]] $Extras = @(),
    [string] $Python = ""
)
$ErrorActionPreference = "Stop"
$root = Split-Path -Parent $PSScriptRoot
$venv = Join-Path $root ".venv"
$extra = $Extras -join ","
if (-not $extra -and $env:EXTRAS) { $extra = $env:EXTRAS }

function Stop-Setup([string] $Text) {
    [Console]::Error.WriteLine("setup_venv: $Text")
    exit 1
}

function Get-PythonVersion([string[]] $Command) {
    # 3.12; empty where the command is missing or does not run
    $program = $Command[0]
    if (-not (Get-Command $program -ErrorAction SilentlyContinue)) { return "" }
    $arguments = @($Command | Select-Object -Skip 1)
    $arguments += "-c", "import sys; print('%d.%d' % sys.version_info[:2])"
    try {
        return [string] (& $program @arguments 2>$null)
    } catch {
        return ""
    }
}

function Find-Python {
    if ($Python) { $candidates = @(, @($Python)) }
    else {
        $candidates = @(
            @("py", "-3.12"), @("py", "-3.11"), @("py", "-3.13"),
            @("python3.12"), @("python3.11"), @("python3.13"), @("python3"), @("python")
        )
    }
    foreach ($candidate in $candidates) {
        if ((Get-PythonVersion $candidate) -match '^3\.1[123]$') { return $candidate }
    }
    Stop-Setup "a Python 3.11 to 3.13 is needed. Install one, or name it: -Python C:\path\to\python.exe"
}

function Get-VenvPython {
    foreach ($place in "Scripts\python.exe", "bin/python") {
        $path = Join-Path $venv $place
        if (Test-Path $path) { return $path }
    }
    return ""
}

$inside = Get-VenvPython
if (-not $inside -or (Get-PythonVersion @($inside)) -notmatch '^3\.1[123]$') {
    $command = @(Find-Python)
    $arguments = @($command | Select-Object -Skip 1) + @("-m", "venv", "--clear", $venv)
    Write-Host "setup_venv: making .venv"
    & $command[0] @arguments
    if ($LASTEXITCODE -ne 0) { Stop-Setup "$command cannot make virtual environments." }
    $inside = Get-VenvPython
}

$target = if ($extra) { ".[$extra]" } else { "." }
Write-Host "setup_venv: installing cellcount_jax $target into .venv (minutes the first time)"
Push-Location $root
try {
    & $inside -m pip install --quiet --disable-pip-version-check -c constraints.txt -e $target
    if ($LASTEXITCODE -ne 0) {
        Stop-Setup "the installation failed (see above); the same command tries again."
    }
} finally {
    Pop-Location
}
