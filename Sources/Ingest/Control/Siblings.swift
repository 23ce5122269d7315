import Synchronization
import System
import Wire

/// The loops of one process, as they reach one another. Only control goes this way: a device that comes to one loop ends its
/// session on another.
final class Siblings: Sendable {
    private let members = Mutex<[(remote: EventLoop.Remote, chat: LoopBound<ChatLoop>)]>([])

    func add(_ chat: ChatLoop) {
        let entry = (remote: chat.loop.remote, chat: LoopBound(chat, on: chat.loop))
        members.withLock { $0.append(entry) }
    }

    func forEach(_ body: @escaping @Sendable (ChatLoop) -> Void) {
        for member in members.withLock({ $0 }) {
            let bound = member.chat
            member.remote.execute { loop in body(bound.value(on: loop)) }
        }
    }

    func takeOver(_ user: UserID, _ device: DeviceID, by newcomer: ChatLoop) {
        let all = members.withLock { $0 }
        guard all.count > 1 else { return }
        for member in all where member.remote !== newcomer.loop.remote {
            let bound = member.chat
            member.remote.execute { loop in bound.value(on: loop).takenOver(user, device) }
        }
    }

    func removeAll() { members.withLock { $0 = [] } }
}

extension ChatLoop {
    func takenOver(_ user: UserID, _ device: DeviceID) {
        guard let number = devices[DeviceKey(user: user, device: device)], let (client, _) = session(number) else {
            return
        }
        refuse(client, .takenOver, "another session of this device")
    }
}
