public import Foundation
import Runtime
import System

/// A program run as a child of the test, with its output at hand.
///
/// The output goes to a file: nothing has to read a pipe, and what a killed child said last is there. It dies with the
/// test: `kill()` when the test is done with it, and `deinit` for the test that failed before.
public final class FanoutProcess: Sendable {
    /// The real `fanout`, built by the same `swift build` as the test that asks.
    public static let binary: URL = {
        let directory = URL(filePath: ProcessInfo.processInfo.arguments[0]).deletingLastPathComponent()
        return directory.appending(path: "fanout")
    }()

    private let process: ChildProcess
    private let outputPath: String
    public var pid: Int32 { process.id }

    /// - Parameter program: another program than `fanout`; looked for in PATH unless it contains a slash.
    public init(_ arguments: [String], environment: [String: String] = [:], program: String? = nil) throws {
        outputPath = NSTemporaryDirectory() + "fanout-output-" + String(UInt64.random(in: 0 ... .max), radix: 36)
        var options = ChildProcess.Options()
        options.environment = ProcessInfo.processInfo.environment.filter { !$0.key.hasPrefix("FANOUT_") }
            .merging(environment) { $1 }
        options.output = .file(outputPath)
        options.error = .file(outputPath)
        process = try ChildProcess(program ?? Self.binary.path, arguments, options: options)
    }

    deinit {
        if isRunning {
            process.kill(.kill)
            process.wait()
        }
        try? FileManager.default.removeItem(atPath: outputPath)
    }

    /// Everything that it has written to standard output and standard error so far.
    public var text: String { (try? File.text(of: outputPath)) ?? "" }
    public var isRunning: Bool { process.poll() == nil }

    public func signal(_ number: Int32) {
        if let signal = ProcessSignal(rawValue: number), isRunning { process.kill(signal) }
    }

    /// Waits for it to end by itself; `nil` if it has not within the time. A child that a signal ended has that signal's
    /// number.
    public func waitForExit(seconds: Double = 20) -> Int32? {
        switch process.wait(timeoutMs: Int(seconds * 1000)) {
        case .status(let status): status
        case .signal(let number): number
        case nil: nil
        }
    }

    /// SIGKILL, and the wait until it is gone.
    public func kill() {
        signal(SIGKILL)
        _ = waitForExit()
    }

    /// SIGTERM, as a service manager stops it; SIGKILL if it does not end in time. Returns its exit code.
    @discardableResult
    public func terminate(seconds: Double = 20) -> Int32? {
        signal(SIGTERM)
        if let status = waitForExit(seconds: seconds) { return status }
        kill()
        return nil
    }

    public func waitForOutput(_ wanted: String, seconds: Double = 20) -> Bool {
        eventually(seconds: seconds) { self.text.contains(wanted) || !self.isRunning } && text.contains(wanted)
    }

    /// Runs a command to its end.
    public static func run(
        _ arguments: [String], environment: [String: String] = [:], seconds: Double = 60
    ) throws -> (status: Int32?, text: String) {
        let process = try FanoutProcess(arguments, environment: environment)
        let status = process.waitForExit(seconds: seconds)
        if status == nil { process.kill() }
        return (status, process.text)
    }
}

/// Looks again and again until something is so, or the time is over: how tests wait for what happens elsewhere.
public func eventually(seconds: Double = 20, _ condition: () throws -> Bool) rethrows -> Bool {
    let deadline = ContinuousClock.now + .seconds(seconds)
    while true {
        if try condition() { return true }
        if ContinuousClock.now > deadline { return false }
        usleep(2000)
    }
}

/// Spreads a load over time, so that it is a stream and not a burst. Never to wait for something: that is `eventually`.
public func pace(microseconds: UInt32) {
    usleep(microseconds)
}
