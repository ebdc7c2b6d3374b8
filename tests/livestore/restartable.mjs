// An object's class that can be told to start anew.

export const restartable = (Class) =>
  class extends Class {
    constructor(state, env) {
      super(state, env);
      this.state = state;
    }

    restart() {
      this.state.abort("restart");
    }
  };
